/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tone: a stream that captures a tone of 440 Hz, the same in each channel. It is the sample of a
 * source. Format S16_LE; frame n is the wave at n * step, modulo 2^16, with step = 440 * 2^16 /
 * rate, a parabola for each half.
 */
#include <string.h>

#include "core/status.h"
#include "services/service_util.h"
#include "streams/streams.h"

#define HERTZ 440u

static int negotiate(struct sbe_stream_settings *settings)
{
    return settings->rate_hz < 2 * HERTZ ? SBE_ERANGE : sbe_check_samples(settings);
}

static int trigger(struct sbe_stream *stream, enum sbe_stream_state next)
{
    if (next == SBE_STREAM_PREPARED)
        stream->state[0] = 0;
    return SBE_OK;
}

static int16_t wave(uint32_t phase)
{
    uint32_t x = phase & 0x7fffu;
    uint32_t height = x * (0x8000u - x) >> 13; /* to 0x8000 */
    int32_t sample = height > 0x7fffu ? 0x7fff : (int32_t)height;
    return (int16_t)((phase & 0x8000u) != 0 ? -sample : sample);
}

static void move(struct sbe_stream *stream, uint8_t *data, uint32_t bytes)
{
    sbe_sample *samples = (sbe_sample *)(void *)data;
    uint32_t channels = stream->settings.frame_bytes / 2, phase = (uint32_t)stream->state[0];
    uint32_t step = (HERTZ << 16) / stream->settings.rate_hz;
    for (uint32_t left = bytes / stream->settings.frame_bytes; left > 0; left--) {
        int16_t sample = wave(phase);
        for (uint32_t i = 0; i < channels; i++)
            *samples++ = sample;
        phase = (phase + step) & 0xffffu;
    }
    stream->state[0] = phase;
}

static void skip(struct sbe_stream *stream, uint32_t bytes)
{
    uint32_t frames = bytes / stream->settings.frame_bytes;
    uint32_t step = (HERTZ << 16) / stream->settings.rate_hz;
    stream->state[0] = ((uint32_t)stream->state[0] + step * frames) & 0xffffu;
}

static const struct sbe_stream_kind TONE = {
    .directions = SBE_STREAM_CAPTURE,
    .negotiate = negotiate,
    .trigger = trigger,
    .move = move,
    .skip = skip,
};
SBE_STREAM(tone, 1, TONE);
