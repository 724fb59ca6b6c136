// SPDX-License-Identifier: Apache-2.0
// The original library's two ends with a C face, for ctypes: one call is one call of its own.
// Built by original.py against a tree of it that the user has.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/asg_ring_stream_client.h"
#include "server/asg_ring_stream_server.h"

namespace {

void ring(int bell)
{
    uint64_t one = 1;
    (void)!write(bell, &one, sizeof(one));
}

int wait(int bell)
{
    uint64_t count;
    return read(bell, &count, sizeof(count)) == sizeof(count) ? 0 : -1;
}

}  // namespace

extern "C" {

struct client {
    asg::client::RingStream stream;
    uint64_t rung;
    client(void *region, size_t size, int bell)
        : stream(region, size, [this, bell] { rung++; ring(bell); }), rung(0)
    {
    }
};

// The original lays the rings out and takes the configuration as it is, so it is written here.
client *client_new(void *region, size_t size, uint32_t step, int bell)
{
    client *made = new client(region, size, bell);
    auto context = reinterpret_cast<struct ring_buffer *>(region);
    auto config = reinterpret_cast<struct asg_ring_config *>(context->config);
    *config = {};
    config->buffer_size = static_cast<uint32_t>(size);
    config->flush_interval = step;
    config->transfer_mode = 1;
    made->stream.allocBuffer(1);  // a reply that comes before the first one is written to NULL
    return made;
}

int client_write(client *self, const void *data, size_t size)
{
    unsigned char *place = self->stream.alloc(size);
    if (!place)
        return -1;
    memcpy(place, data, size);
    return 0;
}

int client_flush(client *self)
{
    return self->stream.flush();
}

int client_send(client *self, const void *data, size_t size, int wait)
{
    self->stream.flush();
    return wait ? self->stream.writeFully(data, size) : self->stream.writeFullyAsync(data, size);
}

int client_read(client *self, void *data, size_t size)
{
    return self->stream.readback(data, size) ? 0 : -1;
}

uint64_t client_rung(client *self)
{
    return self->rung;
}

void client_delete(client *self)
{
    delete self;
}

asg::server::RingStream *server_new(void *region, size_t size, int bell)
{
    return new asg::server::RingStream(static_cast<uint8_t *>(region), size,
                                       [bell] { return wait(bell); });
}

size_t server_read(asg::server::RingStream *self, void *data, size_t size)
{
    return self->read(data, size);
}

int server_reply(asg::server::RingStream *self, const void *data, size_t size)
{
    return self->writeFully(data, size);
}
}
