/* SPDX-License-Identifier: Apache-2.0 */
/*
 * meter: a stream that is played to nobody; the event of each period has its peaks, of the first
 * and the second channel, 0 to 32768. It is the sample of a sink whose result are events. Format
 * S16_LE.
 */
#include <string.h>

#include "core/status.h"
#include "services/service_util.h"
#include "streams/streams.h"

static int trigger(struct sbe_stream *stream, enum sbe_stream_state next)
{
    if (next == SBE_STREAM_PREPARED)
        memset(stream->state, 0, sizeof stream->state);
    return SBE_OK;
}

static void move(struct sbe_stream *stream, uint8_t *data, uint32_t bytes)
{
    const sbe_sample *samples = (const sbe_sample *)(const void *)data;
    uint32_t channels = stream->settings.frame_bytes / 2, frames = 0;
    if (data != NULL)
        frames = bytes / stream->settings.frame_bytes;
    for (; frames > 0; frames--, samples += channels)
        for (uint32_t i = 0; i < channels && i < 2; i++) {
            int32_t sample = samples[i];
            uint64_t level = (uint64_t)(sample < 0 ? -sample : sample);
            if (level > stream->state[i])
                stream->state[i] = level;
        }
    if (bytes < stream->to_period)
        return;
    for (uint32_t i = 0; i < 2; i++) {
        stream->event_data[i] = (uint32_t)stream->state[i];
        stream->state[i] = 0;
    }
}

static const struct sbe_stream_kind METER = {
    .directions = SBE_STREAM_PLAYBACK,
    .negotiate = sbe_check_samples,
    .trigger = trigger,
    .move = move,
};
SBE_STREAM(meter, 1, METER);
