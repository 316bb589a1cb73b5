#include <algorithm>
#include <xos/sched/detail/worker.hpp>

namespace xos::sched::detail {

namespace {

bool later(const timer_entry& a, const timer_entry& b) noexcept {
    return a.deadline > b.deadline;
}

bool stale(const timer_entry& e) noexcept {
    return e.fiber->timer.load(std::memory_order_relaxed) != e.id;
}

}  // namespace

void timer_heap::arm(fiber_state& f, std::int64_t deadline, wait_token& token, std::uint64_t id) {
    if (heap_.size() > 64 && heap_.size() > 3 * live_) drop_stale();
    f.timer.store(id, std::memory_order_relaxed);
    heap_.push_back({deadline, id, &f, &token});
    std::push_heap(heap_.begin(), heap_.end(), later);
    live_++;
}

void timer_heap::disarm(fiber_state& f) noexcept {
    f.timer.store(0, std::memory_order_relaxed);
    live_--;
}

std::int64_t timer_heap::next() noexcept {
    while (!heap_.empty() && stale(heap_.front())) {
        std::pop_heap(heap_.begin(), heap_.end(), later);
        heap_.pop_back();
    }
    return heap_.empty() ? never : heap_.front().deadline;
}

wait_token* timer_heap::take_due(std::int64_t now) noexcept {
    if (next() > now || heap_.empty()) return nullptr;
    const timer_entry due = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    disarm(*due.fiber);
    return due.token;
}

void timer_heap::clear() noexcept {
    heap_.clear();
    live_ = 0;
}

void timer_heap::drop_stale() noexcept {
    std::erase_if(heap_, stale);
    std::make_heap(heap_.begin(), heap_.end(), later);
}

}  // namespace xos::sched::detail
