// Reads and writes that a turn answers. Each declines what is not simple: Linux then does it, after the turn has ended.
#include "libxos/arch/guest_area.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/cell/kernel_abi.hpp"
#include "libxos/loops/turns.hpp"

namespace xos::loops {

using cell::io_vector;

turn_memory the_turns;

namespace {

constexpr long declined = XOS_LOCAL_DECLINED;

constexpr unsigned most_buffers = 8;

void* pointer(std::uint64_t address) {
    return reinterpret_cast<void*>(address);
}

slot* own_slot(std::uint64_t descriptor) {
    const auto number = static_cast<std::uint32_t>(descriptor);
    if (number >= most_descriptors) return nullptr;
    const std::uint32_t reference = the_turns.slot_of[number].load(std::memory_order_acquire);
    if (!reference) return nullptr;
    const turn& t = the_turns.turns[(reference - 1) / slots_in_turn];
    slot& s = the_turns.at(reference);
    return t.vcpu == arch::current_area()->vcpu && s.descriptor == number ? &s : nullptr;
}

/// False: another thread has closed the slot.
bool advance(slot& s, std::uint64_t& word, std::uint64_t by) {
    return s.word.compare_exchange_strong(word, word + by, std::memory_order_acq_rel);
}

long say_empty(slot& s, std::uint64_t word, bool may_wait) {
    // Once only: a program that asks again and again would never see what comes.
    if (may_wait || !s.may_say_empty || (word & progress::said_empty)) return declined;
    return advance(s, word, progress::said_empty) ? -base::error::again : declined;
}

long read(std::uint64_t descriptor, std::uint64_t to, std::uint64_t n, bool dont_wait_flag) {
    slot* const s = own_slot(descriptor);
    if (!s || n == 0) return declined;
    std::uint64_t word = s->word.load(std::memory_order_acquire);
    if (word & progress::closed) return declined;
    const std::uint64_t begin = progress::bytes_read(word), left = s->length - begin;
    if (left == 0) return say_empty(*s, word, !dont_wait_flag && !s->non_blocking);
    const std::uint64_t taken = n < left ? n : left;
    if (xos_copy_or_stop(pointer(to), s->in + begin, taken) != 0) return declined;
    return advance(*s, word, taken * progress::one_read) ? static_cast<long>(taken) : declined;
}

/// The buffers are in libxos's memory, what they name in the program's.
long write(slot& s, const io_vector* buffers, std::uint64_t count) {
    std::uint64_t word = s.word.load(std::memory_order_acquire);
    if ((word & progress::closed) || !s.may_keep) return declined;
    std::uint64_t n = 0;
    const std::uint64_t begin = progress::bytes_written(word);
    for (std::uint64_t i = 0; i < count; i++) {
        const std::uint64_t length = buffers[i].length;
        if (length > slot_bytes || begin + n + length > slot_bytes) return declined;
        if (xos_copy_or_stop(s.out + begin + n, pointer(buffers[i].base), length) != 0)
            return declined;
        n += length;
    }
    if (n == 0) return declined;
    return advance(s, word, n * progress::one_written) ? static_cast<long>(n) : declined;
}

long write_buffers(std::uint64_t descriptor, std::uint64_t array, std::uint64_t count) {
    slot* const s = own_slot(descriptor);
    if (!s || count > most_buffers) return declined;
    io_vector buffers[most_buffers];
    if (xos_copy_or_stop(buffers, pointer(array), count * sizeof *buffers) != 0) return declined;
    return write(*s, buffers, count);
}

constexpr bool has_others(std::uint64_t flags, std::uint64_t known) {
    return (flags & ~known & 0xffffffff) != 0;
}

}  // namespace
}  // namespace xos::loops

extern "C" {

long xos_read(std::uint64_t descriptor, std::uint64_t to, std::uint64_t n) {
    return xos::loops::read(descriptor, to, n, false);
}

long xos_recvfrom(std::uint64_t descriptor, std::uint64_t to, std::uint64_t n, std::uint64_t flags,
                  std::uint64_t address) {
    using namespace xos::loops;
    if (address || has_others(flags, dont_wait | no_signal)) return declined;
    return read(descriptor, to, n, flags & dont_wait);
}

long xos_write(std::uint64_t descriptor, std::uint64_t from, std::uint64_t n) {
    using namespace xos::loops;
    slot* const s = own_slot(descriptor);
    const io_vector buffer{from, n};
    return s ? write(*s, &buffer, 1) : declined;
}

long xos_sendto(std::uint64_t descriptor, std::uint64_t from, std::uint64_t n, std::uint64_t flags,
                std::uint64_t address) {
    using namespace xos::loops;
    if (address || has_others(flags, dont_wait | no_signal)) return declined;
    return xos_write(descriptor, from, n);
}

long xos_writev(std::uint64_t descriptor, std::uint64_t array, std::uint64_t count) {
    return xos::loops::write_buffers(descriptor, array, count);
}

long xos_sendmsg(std::uint64_t descriptor, std::uint64_t at, std::uint64_t flags) {
    using namespace xos::loops;
    xos::cell::message_header m;
    if (has_others(flags, dont_wait | no_signal) || !own_slot(descriptor) ||
        xos_copy_or_stop(&m, pointer(at), sizeof m) != 0 || m.name || m.control_length)
        return declined;
    return write_buffers(descriptor, m.buffers, m.count);
}
}
