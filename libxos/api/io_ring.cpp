// The engine on io_uring.
//
// Task work is deferred where Linux can (6.1): completions then appear only when the thread asks
// for them. Otherwise each would interrupt the thread, and inside, that is an exit.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>

#include "libxos/api/errors.hpp"
#include "libxos/api/io_core.hpp"
#include "libxos/api/io_uring_abi.hpp"
#include "libxos/base/raw_syscall.hpp"

namespace xos::api {

namespace {

using base::as_long;
using base::raw_syscall;
using namespace uring;

template <class T>
T acquire(const T* at) {
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
template <class T>
void release(T* at, T value) {
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

constexpr std::uint32_t needed_features = feature_single_mapping | feature_no_drop |
                                          feature_stable_submission | feature_fast_poll |
                                          feature_extended_enter | feature_linked_files;

constexpr io_code needed_operations[] = {
    io_code::nop,      io_code::readv,    io_code::writev,  io_code::fsync,  io_code::poll,
    io_code::timeout,  io_code::accept,   io_code::connect, io_code::openat, io_code::close,
    io_code::statx,    io_code::read,     io_code::write,   io_code::send,   io_code::recv,
    io_code::shutdown, io_code::renameat, io_code::unlinkat};

/// A ring that Linux has made, and its mappings. Offers no order.
class ring_memory {
  public:
    ring_memory() = default;
    ring_memory(const ring_memory&) = delete;
    ring_memory& operator=(const ring_memory&) = delete;
    ~ring_memory() {
        if (entries_) munmap(entries_, made.sq_entries * sizeof(sqe));
        if (rings_) munmap(rings_, ring_bytes_);
        if (fd >= 0) raw_syscall(__NR_close, fd);
    }

    /// 0, or an errno.
    int make(unsigned entries, std::uint32_t flags, unsigned idle_milliseconds) {
        made = {};
        made.flags = flags | setup_clamp | setup_cq_size;
        made.cq_entries = 4 * entries;
        made.sq_thread_idle = idle_milliseconds;
        const long result = raw_syscall(__NR_io_uring_setup, entries, as_long(&made));
        if (result < 0) return static_cast<int>(-result);
        fd = static_cast<int>(result);
        return 0;
    }
    int map() {
        ring_bytes_ = std::max(made.sq.array + made.sq_entries * sizeof(std::uint32_t),
                               made.cq.cqes + made.cq_entries * sizeof(cqe));
        rings_ = static_cast<char*>(map(ring_bytes_, mapping_of_rings));
        if (!rings_) return errno;
        entries_ = static_cast<sqe*>(map(made.sq_entries * sizeof(sqe), mapping_of_entries));
        return entries_ ? 0 : errno;
    }
    std::uint32_t* word(std::uint32_t offset) const {
        return reinterpret_cast<std::uint32_t*>(rings_ + offset);
    }
    const cqe* completions() const { return reinterpret_cast<const cqe*>(rings_ + made.cq.cqes); }
    sqe* entries() const { return entries_; }

    int fd = -1;
    parameters made{};

  private:
    void* map(std::size_t bytes, std::uint64_t what) const {
        void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                              static_cast<off_t>(what));
        return at == MAP_FAILED ? nullptr : at;
    }

    char* rings_ = nullptr;
    sqe* entries_ = nullptr;
    std::size_t ring_bytes_ = 0;
};

class ring_engine final : public io_engine {
  public:
    ring_engine(detail::io_core& core, std::unique_ptr<ring_memory> ring)
        : core_(core),
          ring_(std::move(ring)),
          sq_head_(ring_->word(ring_->made.sq.head)),
          sq_tail_(ring_->word(ring_->made.sq.tail)),
          sq_flags_(ring_->word(ring_->made.sq.flags)),
          cq_head_(ring_->word(ring_->made.cq.head)),
          cq_tail_(ring_->word(ring_->made.cq.tail)),
          has_thread_(ring_->made.flags & setup_sq_thread),
          tail_(*sq_tail_) {
        std::uint32_t* const array = ring_->word(ring_->made.sq.array);
        for (std::uint32_t i = 0; i < ring_->made.sq_entries; i++) array[i] = i;
    }

    void push(std::span<io_slot* const> chains) override {
        for (io_slot* const slot : chains) slot->parts = slot->limit ? 2 : 1;
        waiting_.insert(waiting_.end(), chains.begin(), chains.end());
    }

    void cancel(io_slot& slot) override {
        // One that has not begun yet is found by the one before it.
        const io_slot* target = &slot;
        while (target->before) target = target->before;
        slot.parts++;
        cancellations_.emplace_back(&slot, data_of(*target, io_part::operation));
    }

    void flush() override {
        while (fill()) enter(0, 0, no_deadline);
        wake_thread();
    }

    void look() override {
        reap();
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (acquire(sq_flags_) & (sq_has_work | sq_cq_overflow)) {
            enter(0, enter_get_events, no_deadline);
            reap();
        }
    }

    bool wait(io_deadline deadline) override {
        if (reap()) {
            flush();
            return true;
        }
        for (;;) {
            const bool all = fill_is_all();
            enter(all ? 1 : 0, enter_get_events, deadline);
            if (reap()) return true;
            if (!all) continue;
            if (!unsubmitted() || has_thread_) return false;
        }
    }

    io_transport transport() const noexcept override { return io_transport::uring; }

  private:
    static std::uint64_t data_of(const io_slot& slot, io_part part) {
        return reinterpret_cast<std::uint64_t>(&slot) | static_cast<std::uint64_t>(part);
    }

    std::uint32_t in_ring() const { return tail_ - acquire(sq_head_); }
    std::uint32_t unsubmitted() const { return has_thread_ ? 0 : in_ring(); }
    std::uint32_t room() const { return ring_->made.sq_entries - in_ring(); }

    sqe& next_entry() { return ring_->entries()[tail_++ & (ring_->made.sq_entries - 1)]; }

    void put(io_slot& slot) {
        const detail::io_request& r = slot.request;
        const std::uint8_t link = slot.after ? entry_links_next : 0;
        sqe& e = next_entry();
        e = {};
        e.opcode = static_cast<std::uint8_t>(r.what);
        e.flags = slot.limit ? entry_links_next : link;
        e.fd = r.fd;
        e.offset = r.offset;
        e.address = r.address;
        e.length = r.length;
        e.operation_flags = r.what == io_code::timeout ? timeout_is_success : r.flags;
        e.user_data = data_of(slot, io_part::operation);
        if (!slot.limit) return;
        sqe& t = next_entry();
        t = {};
        t.opcode = operation_link_timeout;
        t.flags = link;
        t.fd = -1;
        t.address = reinterpret_cast<std::uint64_t>(&slot.limit_time);
        t.length = 1;
        t.user_data = data_of(slot, io_part::deadline);
    }

    /// Puts whole chains into the ring, and cancellations after them, until it is full. Whether
    /// anything has to be submitted.
    bool fill() {
        while (!waiting_.empty()) {
            std::uint32_t entries = 0;
            std::size_t length = 0;
            for (const io_slot* s = waiting_.front(); s; s = s->after, length++)
                entries += s->limit ? 2 : 1;
            if (room() < entries) break;
            for (; length; length--) {
                put(*waiting_.front());
                waiting_.pop_front();
            }
        }
        while (waiting_.empty() && !cancellations_.empty() && room()) {
            const auto [slot, target] = cancellations_.front();
            cancellations_.pop_front();
            sqe& e = next_entry();
            e = {};
            e.opcode = operation_cancel;
            e.fd = -1;
            e.address = target;
            e.user_data = data_of(*slot, io_part::cancellation);
        }
        release(sq_tail_, tail_);
        return unsubmitted() || !waiting_.empty() || !cancellations_.empty();
    }

    bool fill_is_all() {
        fill();
        return waiting_.empty() && cancellations_.empty();
    }

    void wake_thread() {
        if (!has_thread_) return;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (acquire(sq_flags_) & sq_needs_wakeup)
            raw_syscall(__NR_io_uring_enter, ring_->fd, 0, 0, enter_wake_sq_thread, 0, 0);
    }

    /// Submits what is in the ring. May return early in every way.
    void enter(unsigned wanted, std::uint32_t flags, io_deadline deadline) {
        kernel_time time;
        enter_argument argument{};
        if (has_thread_) {
            std::atomic_thread_fence(std::memory_order_seq_cst);
            if (acquire(sq_flags_) & sq_needs_wakeup) flags |= enter_wake_sq_thread;
            if (!room() && !wanted) flags |= enter_wait_for_room;
        }
        const bool ends = wanted && deadline != no_deadline;
        if (ends) {
            time = kernel_time_of(remaining(deadline));
            argument = {0, 8, 0, reinterpret_cast<std::uint64_t>(&time)};
            flags |= enter_extended;
        }
        const long result =
            raw_syscall(__NR_io_uring_enter, ring_->fd, unsubmitted(), wanted, flags,
                        ends ? as_long(&argument) : 0, ends ? sizeof argument : 0);
        if (result >= 0 || result == -ETIME || result == -EINTR) return;
        // Completions that found no room in their ring, or memory that operations would give back:
        // both are there once what has ended is known.
        if ((result == -EBUSY || result == -EAGAIN) && core_.under_way > in_ring()) {
            raw_syscall(__NR_io_uring_enter, ring_->fd, 0, reap() ? 0 : 1, enter_get_events, 0, 0);
            reap();
            return;
        }
        throw std::system_error(static_cast<int>(-result), std::generic_category(),
                                "io_uring_enter");
    }

    /// Whether there was anything.
    bool reap() {
        bool any = false;
        const std::uint32_t mask = ring_->made.cq_entries - 1;
        for (;;) {
            const std::uint32_t head = *cq_head_;
            if (head == acquire(cq_tail_)) return any;
            const cqe c = ring_->completions()[head & mask];
            release(cq_head_, head + 1);
            any = true;
            constexpr std::uint64_t part = 15;
            core_.report(*reinterpret_cast<io_slot*>(c.user_data & ~part),
                         static_cast<io_part>(c.user_data & part), c.result);
        }
    }

    detail::io_core& core_;
    std::unique_ptr<ring_memory> ring_;
    std::uint32_t *sq_head_, *sq_tail_, *sq_flags_, *cq_head_, *cq_tail_;
    bool has_thread_;
    std::uint32_t tail_;
    std::deque<io_slot*> waiting_;  ///< for room in the ring
    std::deque<std::pair<io_slot*, std::uint64_t>> cancellations_;
};

/// The best of what Linux knows; 0, or an errno.
int make_ring(ring_memory& ring, const io_options& o) {
    constexpr std::uint32_t deferring = setup_single_issuer | setup_defer_work | setup_tell_of_work;
    const auto idle = static_cast<unsigned>(o.submission_thread.count());
    if (idle) return ring.make(o.entries, setup_submit_all | setup_sq_thread, idle);
    int error = 0;
    for (std::uint32_t flags : {deferring, setup_cooperative | setup_tell_of_work, 0u}) {
        error = ring.make(o.entries, setup_submit_all | flags, 0);
        if (error != EINVAL) break;
    }
    return error;
}

std::string name_of(int error) {
    return std::generic_category().message(error);
}

bool has_operations(const ring_memory& ring, io_refusal& why) {
    const auto known = std::make_unique<probe>();
    const long result = raw_syscall(__NR_io_uring_register, ring.fd, register_probe,
                                    as_long(known.get()), std::size(known->operations));
    if (result < 0) {
        why = {static_cast<int>(-result),
               "io_uring_register: " + name_of(static_cast<int>(-result))};
        return false;
    }
    const auto lacks = [&](unsigned n) {
        return n >= known->length || !(known->operations[n].flags & probe_supported);
    };
    const auto missing = [&](unsigned n) {
        if (!lacks(n)) return false;
        why = {EOPNOTSUPP, "this kernel's io_uring lacks operation " + std::to_string(n)};
        return true;
    };
    for (io_code c : needed_operations) {
        if (missing(static_cast<unsigned>(c))) return false;
    }
    return !missing(operation_cancel) && !missing(operation_link_timeout);
}

}  // namespace

std::unique_ptr<io_engine> make_ring_engine(detail::io_core& core, const io_options& options,
                                            io_refusal& why) {
    auto ring = std::make_unique<ring_memory>();
    if (const int error = make_ring(*ring, options)) {
        why = {error, "io_uring_setup: " + name_of(error)};
        return nullptr;
    }
    if (const auto lacking = needed_features & ~ring->made.features) {
        why = {EOPNOTSUPP, "this kernel's io_uring is older than Linux 5.18"};
        return nullptr;
    }
    if (!has_operations(*ring, why)) return nullptr;
    if (const int error = ring->map()) {
        why = {error, "mmap of the rings: " + name_of(error)};
        return nullptr;
    }
    return std::make_unique<ring_engine>(core, std::move(ring));
}

}  // namespace xos::api
