#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "libxos/api/errors.hpp"
#include "libxos/api/io_core.hpp"
#include "libxos/base/raw_syscall.hpp"

namespace xos {

using api::io_deadline;
using api::no_deadline;

const char* name(io_transport t) noexcept {
    switch (t) {
        case io_transport::automatic:
            return "automatic";
        case io_transport::uring:
            return "io_uring";
        case io_transport::plain:
            return "plain";
    }
    return "unknown";
}

namespace api {

kernel_time kernel_time_of(std::chrono::nanoseconds t) {
    constexpr std::int64_t second = 1'000'000'000;
    return {t.count() / second, t.count() % second};
}

std::chrono::nanoseconds remaining(io_deadline end) {
    return std::max(end - std::chrono::steady_clock::now(), io_deadline::duration::zero());
}

std::size_t full_transfer(const detail::io_request& r) {
    switch (r.what) {
        case io_code::read:
        case io_code::write:
            return r.length;
        case io_code::send:
        case io_code::recv:
            return r.flags & MSG_WAITALL ? r.length : 0;
        case io_code::readv:
        case io_code::writev: {
            std::size_t sum = 0;
            const auto* part = reinterpret_cast<const iovec*>(r.address);
            for (std::uint32_t i = 0; i < r.length; i++) sum += part[i].iov_len;
            return sum;
        }
        default:
            return 0;
    }
}

}  // namespace api

namespace detail {

namespace {

const void* this_thread() {
    static thread_local const char here = 0;
    return &here;
}

constexpr std::size_t page = 4096;

/// A page that is not zero, but in every child that has a copy of it.
const volatile char* make_alive_page() {
    void* const at =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    if (madvise(at, page, MADV_WIPEONFORK)) {
        const int error = errno;
        munmap(at, page);
        throw std::system_error(error, std::generic_category(), "madvise(MADV_WIPEONFORK)");
    }
    *static_cast<char*>(at) = 1;
    return static_cast<const volatile char*>(at);
}

/// reserve() would allocate exactly this, every time.
void make_room(std::vector<io_slot*>& list, std::size_t size) {
    if (list.capacity() < size) list.reserve(2 * size);
}

}  // namespace

io_core::io_core(const io_options& options)
    : options_(options), most_in_chain_(std::bit_ceil(options.entries)), thread_(this_thread()) {
    if (options.entries < 1 || options.entries > 4096)
        api::raise(errc::bad_argument, "io_options::entries is 1 to 4096");
    if (options.submission_thread.count() < 0)
        api::raise(errc::bad_argument, "io_options::submission_thread is no negative time");
    options_.entries = static_cast<unsigned>(most_in_chain_);
    api::io_refusal why{0, "io_options ask for them"};
    if (options.transport != io_transport::plain) {
        engine = api::make_ring_engine(*this, options_, why);
        if (!engine && options.transport == io_transport::uring)
            throw std::system_error(why.error, std::generic_category(), why.reason);
    }
    if (!engine) {
        engine = api::make_plain_engine(*this);
        reason = why.reason;
    }
    alive_ = make_alive_page();
}

io_core::~io_core() {
    if (alive_) munmap(const_cast<char*>(alive_), page);
}

bool io_core::is_here() const noexcept {
    return thread_ == this_thread();
}

bool io_core::is_child() const noexcept {
    return *alive_ == 0;
}

void io_core::check() const {
    if (is_child())
        api::raise(errc::made_before_fork,
                   "the queue is the parent's; make one in the child for operations of its own");
    if (!is_here())
        api::raise(errc::other_thread, "an io_queue belongs to the thread that has made it");
}

io_slot& io_core::add(const io_request& wanted) {
    const bool linked = std::exchange(link_next_, false);
    const auto limit = std::exchange(within_next_, std::nullopt);
    check();
    const std::size_t chain = (linked ? chain_ : 0) + (limit ? 2 : 1);
    if (chain > most_in_chain_)
        api::raise(errc::bad_argument, "a chain is longer than io_options::entries");
    make_room(queued_, queued_.size() + 1);
    if (free_.empty()) {
        make_room(free_, slots_.size() + 1);       // so that release() needs no memory
        make_room(again_, 2 * slots_.size() + 2);  // nor report()
        slots_.emplace_back().core = this;
        free_.push_back(&slots_.back());
    }
    io_slot& slot = *free_.back();
    free_.pop_back();
    slot.request = wanted;
    slot.state = io_state::queued;
    slot.limit = limit;
    if (limit) slot.limit_time = api::kernel_time_of(*limit);
    if (linked) {
        slot.before = queued_.back();
        slot.before->after = &slot;
    }
    queued_.push_back(&slot);
    chain_ = chain;
    return slot;
}

void io_core::link() {
    check();
    if (queued_.empty())
        api::raise(errc::bad_argument, "link() needs an operation before it in the same submit()");
    link_next_ = true;
}

void io_core::within(std::chrono::nanoseconds at_most) {
    check();
    if (at_most.count() < 0) api::raise(errc::bad_argument, "within() a negative time");
    within_next_ = at_most;
}

void io_core::push() {
    if (queued_.empty()) return;
    std::vector<io_slot*> taken;
    taken.swap(queued_);
    link_next_ = false;
    // Counted first: some end at once.
    for (io_slot* const slot : taken) slot->state = io_state::under_way;
    under_way += taken.size();
    engine->push(taken);
    taken.clear();
    if (queued_.empty()) queued_.swap(taken);  // the memory, for the next ones
}

std::size_t io_core::submit() {
    check();
    const std::size_t count = queued_.size();
    push();
    engine->flush();
    return count;
}

std::size_t io_core::collect() {
    check();
    const std::size_t before = ended_;
    engine->look();
    cancel_again();
    return ended_ - before;
}

std::size_t io_core::wait_any(io_deadline deadline) {
    check();
    const std::size_t before = ended_;
    push();
    bool goes_on = true;
    while (goes_on && ended_ == before && under_way) {
        goes_on = engine->wait(deadline);
        cancel_again();
    }
    engine->flush();
    return ended_ - before;
}

bool io_core::wait(io_slot& slot, io_deadline deadline) {
    check();
    while (slot.state != io_state::ended) {
        push();
        if (slot.state == io_state::ended) break;
        if (deadline != no_deadline && std::chrono::steady_clock::now() >= deadline) {
            engine->flush();
            engine->look();
            cancel_again();
            break;
        }
        const std::uint64_t fiber = options_.scheduler ? options_.scheduler->current() : 0;
        if (fiber) {
            engine->flush();
            if (slot.state == io_state::ended) break;
            slot.fiber = fiber;
            options_.scheduler->suspend(deadline);
            slot.fiber = 0;
        } else {
            engine->wait(deadline);
            cancel_again();
        }
    }
    return slot.state == io_state::ended;
}

bool io_core::ready(io_slot& slot) {
    check();
    if (slot.state == io_state::under_way) {
        engine->look();
        cancel_again();
    }
    return slot.state == io_state::ended;
}

void io_core::cancel(io_slot& slot) {
    check();
    if (slot.state == io_state::queued) {
        cancel_queued(slot);
        return;
    }
    if (slot.state != io_state::under_way || slot.cancel_asked) return;
    slot.cancel_asked = true;
    engine->cancel(slot);
}

/// With all that are linked behind it.
void io_core::cancel_queued(io_slot& slot) {
    if (slot.before) slot.before->after = nullptr;
    slot.before = nullptr;
    const auto first = std::ranges::find(queued_, &slot);
    auto last = first;
    for (const io_slot* s = &slot; s; s = s->after) ++last;
    const std::vector<io_slot*> gone(first, last);
    queued_.erase(first, last);
    // What is queued next may be linked to the last one that there is.
    chain_ = 0;
    for (const io_slot* s = queued_.empty() ? nullptr : queued_.back(); s; s = s->before)
        chain_ += s->limit ? 2 : 1;
    link_next_ = link_next_ && !queued_.empty();
    under_way += gone.size();
    for (io_slot* const s : gone) end(*s, -ECANCELED);
}

/// Those that Linux did not find, because they were just going from one state to another.
void io_core::cancel_again() {
    if (again_.empty()) return;
    for (io_slot* const slot : std::exchange(again_, {})) {
        if (slot->state == io_state::under_way && slot->cancel_asked) engine->cancel(*slot);
    }
    again_.reserve(2 * slots_.size());
}

void io_core::report(io_slot& slot, io_part part, std::int64_t result) {
    switch (part) {
        case io_part::operation:
            slot.result = result;
            slot.has_result = true;
            break;
        case io_part::deadline:
            if (result == -ETIME) slot.timed_out = true;
            break;
        case io_part::cancellation:
            if (result == -ENOENT && !slot.has_result) again_.push_back(&slot);
            break;
    }
    if (--slot.parts) return;
    std::int64_t r = slot.result;
    const bool is_cancelled = r == -ECANCELED || r == -EINTR;
    if (slot.timed_out && is_cancelled)
        r = -ETIMEDOUT;
    else if (slot.cancel_asked && is_cancelled)
        r = -ECANCELED;
    else if (slot.request.what == io_code::timeout && r == -ETIME)
        r = 0;
    end(slot, r);
}

void io_core::end(io_slot& slot, std::int64_t result) {
    slot.result = result;
    slot.state = io_state::ended;
    slot.copied.reset();
    under_way--;
    ended_++;
    if (slot.after) {
        slot.after->before = nullptr;
        if (slot.after->cancel_asked) again_.push_back(slot.after);
    }
    if (slot.before) slot.before->after = nullptr;
    slot.before = slot.after = nullptr;
    io_listener* const listener = std::exchange(slot.listener, nullptr);
    const std::uint64_t tag = slot.tag, fiber = std::exchange(slot.fiber, 0);
    if (!slot.has_handle) release(slot);
    if (listener) listener->ended(tag);
    if (fiber) options_.scheduler->ended(fiber);
}

void io_core::release(io_slot& slot) noexcept {
    slot.buffer.emplace<std::monostate>();
    slot.copied.reset();
    slot.state = io_state::free;
    slot.parts = 0;
    slot.has_result = slot.timed_out = slot.cancel_asked = false;
    slot.limit.reset();
    slot.moved = 0;
    slot.connecting = slot.retries = false;
    slot.end = no_deadline;
    free_.push_back(&slot);
}

void io_core::adopt(io_slot& slot) noexcept {
    slot.has_handle = true;
    handles_++;
}

void io_core::abandon(io_slot& slot) noexcept {
    slot.has_handle = false;
    handles_--;
    if (slot.state == io_state::ended && !is_child()) release(slot);
    if (closed_ && handles_ == 0) delete this;
}

void io_core::close() {
    if (!is_child()) {
        // As for a std::thread that was not joined: no other thread can end these.
        if (!is_here() && under_way) std::terminate();
        while (!queued_.empty()) cancel_queued(*queued_.front());
        if (under_way) {
            for (auto& slot : slots_) {
                if (slot.state != io_state::under_way || slot.cancel_asked) continue;
                slot.cancel_asked = true;
                engine->cancel(slot);
            }
            while (under_way) {
                engine->wait(no_deadline);
                cancel_again();
            }
        }
    }
    engine.reset();
    closed_ = true;
    if (handles_ == 0) delete this;
}

}  // namespace detail

// ---- the queue

using detail::io_core;
using detail::io_request;
using detail::io_slot;

io_queue::io_queue(const io_options& options) : core_(new io_core(options)) {}

io_queue::~io_queue() {
    core_->close();
}

std::uint64_t io_queue::at(std::int64_t offset) {
    // Every other negative offset is EINVAL, as for pread(2); this one would mean the position.
    return static_cast<std::uint64_t>(offset == -1 ? -2 : offset);
}

io_future<void> io_queue::timeout(std::chrono::nanoseconds after) {
    if (after.count() < 0) api::raise(errc::bad_argument, "timeout() of a negative time");
    io_slot* const slot = add({detail::io_code::timeout, -1, 0, 1});
    slot->time = api::kernel_time_of(after);
    slot->request.address = reinterpret_cast<std::uint64_t>(&slot->time);
    return io_future<void>(slot);
}

io_queue& io_queue::link() {
    core_->link();
    return *this;
}

io_queue& io_queue::within(std::chrono::nanoseconds at_most) {
    core_->within(at_most);
    return *this;
}

std::size_t io_queue::submit() {
    return core_->submit();
}
std::size_t io_queue::collect() {
    return core_->collect();
}
std::size_t io_queue::wait_any() {
    return core_->wait_any(no_deadline);
}
std::size_t io_queue::wait_any_until(io_deadline deadline) {
    return core_->wait_any(deadline);
}
std::size_t io_queue::under_way() const noexcept {
    return core_->under_way;
}
io_transport io_queue::transport() const noexcept {
    return core_->engine->transport();
}
std::string io_queue::transport_reason() const {
    return core_->reason;
}

io_slot* io_queue::add(const io_request& wanted) {
    io_slot& slot = core_->add(wanted);
    core_->adopt(slot);
    return &slot;
}

namespace {

template <class Buffer>
void own(io_slot& slot, Buffer&& buffer, std::size_t most) {
    auto& kept = slot.buffer.emplace<std::remove_cvref_t<Buffer>>(std::move(buffer));
    const auto set = [&](auto* data, std::size_t size) {
        slot.request.address = reinterpret_cast<std::uint64_t>(data);
        slot.request.length = static_cast<std::uint32_t>(std::min(size, most));
    };
    if constexpr (std::same_as<std::remove_cvref_t<Buffer>, owned_bytes>)
        set(kept.data.get(), kept.size);
    else
        set(kept.data(), kept.size());
}

/// Room for a copy that lives as long as the operation.
std::unique_ptr<char[]> copy(std::string_view path, std::string_view second = {}) {
    if (path.find('\0') != path.npos || second.find('\0') != second.npos)
        api::raise(errc::bad_argument, "the name of a file has no zero byte");
    auto room = std::make_unique<char[]>(path.size() + second.size() + 2);
    std::ranges::copy(path, room.get());
    std::ranges::copy(second, room.get() + path.size() + 1);
    return room;
}

}  // namespace

io_slot* io_queue::add(const io_request& wanted, std::vector<std::byte>&& buffer) {
    io_slot* const slot = add(wanted);
    own(*slot, std::move(buffer), most_bytes);
    return slot;
}
io_slot* io_queue::add(const io_request& wanted, std::string&& buffer) {
    io_slot* const slot = add(wanted);
    own(*slot, std::move(buffer), most_bytes);
    return slot;
}
io_slot* io_queue::add(const io_request& wanted, owned_bytes&& buffer) {
    io_slot* const slot = add(wanted);
    own(*slot, std::move(buffer), most_bytes);
    return slot;
}

io_slot* io_queue::add(const io_request& wanted, const void* copied, std::size_t bytes) {
    auto room = std::make_unique_for_overwrite<char[]>(bytes);
    std::memcpy(room.get(), copied, bytes);
    io_slot* const slot = add(wanted);
    slot->copied = std::move(room);
    slot->request.address = reinterpret_cast<std::uint64_t>(slot->copied.get());
    return slot;
}

io_slot* io_queue::add(const io_request& wanted, std::string_view path) {
    auto room = copy(path);
    io_slot* const slot = add(wanted);
    slot->copied = std::move(room);
    slot->request.address = reinterpret_cast<std::uint64_t>(slot->copied.get());
    return slot;
}

io_slot* io_queue::add(const io_request& wanted, std::string_view path, std::string_view second) {
    auto room = copy(path, second);
    io_slot* const slot = add(wanted);
    slot->copied = std::move(room);
    slot->request.address = reinterpret_cast<std::uint64_t>(slot->copied.get());
    slot->request.offset = slot->request.address + path.size() + 1;
    return slot;
}

// ---- futures

namespace {

io_slot& checked(io_slot* slot) {
    if (!slot) api::raise(errc::bad_argument, "a future of no operation");
    return *slot;
}

}  // namespace

bool io_handle::ready() const {
    io_slot& slot = checked(slot_);
    return slot.core->ready(slot);
}

void io_handle::wait() const {
    io_slot& slot = checked(slot_);
    slot.core->wait(slot, no_deadline);
}

bool io_handle::wait_until(io_deadline deadline) const {
    io_slot& slot = checked(slot_);
    return slot.core->wait(slot, deadline);
}

void io_handle::cancel() const {
    io_slot& slot = checked(slot_);
    slot.core->cancel(slot);
}

void io_handle::notify(io_listener& listener, std::uint64_t tag) const {
    io_slot& slot = checked(slot_);
    slot.core->check();
    if (slot.state == detail::io_state::ended) return listener.ended(tag);
    slot.listener = &listener;
    slot.tag = tag;
}

std::int64_t io_handle::value() const {
    io_slot& slot = checked(slot_);
    slot.core->wait(slot, no_deadline);
    return slot.result;
}

void io_handle::drop() noexcept {
    if (io_slot* const slot = std::exchange(slot_, nullptr)) {
        slot->listener = nullptr;
        slot->core->abandon(*slot);
    }
}

void io_handle::end() noexcept {
    if (!slot_) return;
    io_core& core = *slot_->core;
    slot_->listener = nullptr;
    if (slot_->state != detail::io_state::ended && !core.is_child()) {
        core.cancel(*slot_);
        core.wait(*slot_, no_deadline);
    }
    drop();
}

namespace {

template <class Buffer>
void give_back_from(io_slot& slot, Buffer& into) {
    slot.core->wait(slot, no_deadline);
    Buffer* const kept = std::get_if<Buffer>(&slot.buffer);
    if (!kept) api::raise(errc::bad_argument, "take() was called a second time");
    into = std::move(*kept);
    slot.buffer.emplace<std::monostate>();
}

}  // namespace

void io_handle::give_back(std::vector<std::byte>& into) const {
    give_back_from(checked(slot_), into);
}
void io_handle::give_back(std::string& into) const {
    give_back_from(checked(slot_), into);
}
void io_handle::give_back(owned_bytes& into) const {
    give_back_from(checked(slot_), into);
}

}  // namespace xos
