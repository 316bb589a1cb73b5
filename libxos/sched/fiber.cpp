#include <algorithm>
#include <cstring>
#include <mutex>
#include <xos/sched/fiber.hpp>

#include "libxos/sched/core.hpp"
#include "libxos/sched/sanitizers.hpp"

namespace xos::sched {

namespace detail {

namespace {

[[noreturn]] void refuse(std::errc code, const char* what) {
    throw std::system_error(std::make_error_code(code), what);
}

void set_name(fiber_state& f, std::string_view name) noexcept {
    const std::size_t n = std::min(name.size(), sizeof f.name - 1);
    std::memcpy(f.name, name.data(), n);
    f.name[n] = '\0';
}

/// Nobody may use its stack before whoever follows it on its thread has arrived.
void wait_off_stack(const fiber_state& f) noexcept {
    while (!f.context.load(std::memory_order_acquire)) __builtin_ia32_pause();
}

}  // namespace

fiber_state& make_fiber(core* c, const spawn_options& options) {
    const fiber_state* const self = current_fiber();
    fiber_state* f;
    if (self && (!c || self->home->owner == c)) {
        worker& w = *self->home;
        if (w.limbo) release(*std::exchange(w.limbo, nullptr));
        f = &w.stacks->take();
        f->id = ++w.last_id << 10 | w.index;
    } else {
        if (!c)
            refuse(std::errc::operation_not_permitted, "only a fiber has a scheduler to spawn on");
        f = &c->take_outside();
    }
    if (!options.name.empty()) set_name(*f, options.name);
    f->migratable = options.migrate == migration::allowed;
    f->shareable = options.worker == any_worker;
    f->task::priority = options.priority;
    f->task::deadline = options.deadline;
    return *f;
}

void refuse_callable() {
    refuse(std::errc::value_too_large, "a fiber's callable takes more than half of its stack");
}

void launch(fiber_state& f, core* c, const spawn_options& options) {
    prepare_context(f);
    announce_fiber(f);
    const fiber_state* const self = current_fiber();
    worker* const here = self && (!c || self->home->owner == c) ? self->home : nullptr;
    if (here && (options.worker == any_worker || options.worker == static_cast<int>(here->index))) {
        f.home = here;
        f.arrived = true;
        here->arrived++;
        here->count.spawned.store(here->count.spawned.load(std::memory_order_relaxed) + 1,
                                  std::memory_order_release);
        here->add(f);
        return;
    }
    try {
        (here ? here->owner : c)->place(f, options.worker, here);
    } catch (...) {
        // The callable has been made.
        f.joiner.store(detached, std::memory_order_relaxed);
        release(f);
        throw;
    }
}

void release(fiber_state& f) noexcept {
    if (f.joiner.load(std::memory_order_relaxed) == finished) wait_off_stack(f);
    forget_fiber(f);
    stack_region& region = *f.region;
    f.alive.store(false, std::memory_order_relaxed);
    if (f.thrown) f.thrown = nullptr;
    if (f.stop) f.stop.reset();
    const fiber_state* const self = current_fiber();
    if (self && self->home->stacks == &region)
        region.give(f);
    else
        region.give_back(f);
}

std::stop_source& stop_source_of(fiber_state& f) {
    std::lock_guard guard(f.stop_lock);
    if (!f.stop) f.stop.emplace();
    return *f.stop;
}

}  // namespace detail

using detail::fiber_state;

namespace {

fiber_state& existing(fiber_state* f) {
    if (!f)
        detail::refuse(std::errc::invalid_argument,
                       "there is no fiber: it was joined or detached before, or moved");
    return *f;
}

}  // namespace

void fiber::join() {
    (void)join_within(nullptr);
}

wait_result fiber::join(const wait_limits& limits) {
    return join_within(&limits);
}

wait_result fiber::join_within(const wait_limits* limits) {
    fiber_state& f = existing(state_);
    if (&f == detail::load_current())
        detail::refuse(std::errc::resource_deadlock_would_occur, "a fiber joins itself");
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    std::uintptr_t state = detail::running;
    if (f.joiner.compare_exchange_strong(state, reinterpret_cast<std::uintptr_t>(&token),
                                         std::memory_order_acq_rel)) {
        const wait_result r = detail::wait(token, limits, "the end of", &f);
        state = reinterpret_cast<std::uintptr_t>(&token);
        // Whoever ends it may be about to look at the token; its release() waits for that.
        if (r != wait_result::ready &&
            f.joiner.compare_exchange_strong(state, detail::running, std::memory_order_acq_rel))
            return r;
    } else if (state != detail::finished) {
        detail::refuse(std::errc::invalid_argument, "another fiber or thread joins this one");
    }
    take_result();
    return wait_result::ready;
}

void fiber::take_result() {
    fiber_state& f = *std::exchange(state_, nullptr);
    detail::wait_off_stack(f);
    if (f.thrown) [[unlikely]] {
        std::exception_ptr thrown = std::move(f.thrown);
        detail::release(f);
        std::rethrow_exception(std::move(thrown));
    }
    detail::release(f);
}

void fiber::detach() {
    fiber_state& f = existing(state_);
    state_ = nullptr;
    std::uintptr_t state = detail::running;
    if (f.joiner.compare_exchange_strong(state, detail::detached, std::memory_order_acq_rel))
        return;
    detail::wait_off_stack(f);
    if (f.thrown) detail::report_unhandled(f);
    detail::release(f);
}

void fiber::stop_and_join() noexcept {
    if (!state_) return;
    request_stop();
    fiber_state& f = *state_;
    detail::wait_token token;
    std::uintptr_t state = detail::running;
    if (f.joiner.compare_exchange_strong(state, reinterpret_cast<std::uintptr_t>(&token),
                                         std::memory_order_acq_rel))
        (void)detail::wait(token, nullptr, "the end of", &f);
    detail::wait_off_stack(f);
    if (f.thrown) detail::report_unhandled(f);
    detail::release(*std::exchange(state_, nullptr));
}

bool fiber::request_stop() {
    return state_ && detail::stop_source_of(*state_).request_stop();
}

std::stop_token fiber::stop_token() const {
    return state_ ? detail::stop_source_of(*state_).get_token() : std::stop_token();
}

namespace this_fiber {

wait_result sleep(const wait_limits& limits) {
    detail::wait_token token;
    token.contended = true;
    return detail::wait(token, &limits, "a time", nullptr);
}

std::stop_token stop_token() {
    fiber_state* const f = detail::current_fiber();
    return f ? detail::stop_source_of(*f).get_token() : std::stop_token();
}

std::uint64_t id() noexcept {
    const fiber_state* const f = detail::current_fiber();
    return f ? f->id : 0;
}

std::string_view name() noexcept {
    const fiber_state* const f = detail::current_fiber();
    return f ? f->name : "";
}

void set_name(std::string_view name) noexcept {
    if (fiber_state* const f = detail::current_fiber()) detail::set_name(*f, name);
}

bool exists() noexcept {
    return detail::current_fiber();
}

}  // namespace this_fiber

}  // namespace xos::sched
