// Fiber-local storage.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstdint>
#include <memory>

namespace xos::sched {

namespace detail {
std::uint64_t new_local_key() noexcept;
void* find_local(std::uint64_t key) noexcept;
void add_local(std::uint64_t key, void* object, void (*destroy)(void*));
}  // namespace detail

/// An object for each fiber, and for each plain thread, that asks for it; made at the first use and
/// destroyed when the fiber or thread ends, the last one first. It stays with a fiber that moves,
/// where a thread_local variable does not. The search is linear: for a few, not for hundreds.
///
///     sched::fiber_local<request_context> context;
///     context->user = "me";
template <class T>
class fiber_local {
  public:
    fiber_local() : key_(detail::new_local_key()) {}
    fiber_local(const fiber_local&) = delete;
    fiber_local& operator=(const fiber_local&) = delete;

    [[nodiscard]] T& get() {
        if (void* const p = detail::find_local(key_)) return *static_cast<T*>(p);
        auto made = std::make_unique<T>();
        detail::add_local(key_, made.get(), [](void* p) { delete static_cast<T*>(p); });
        return *made.release();
    }
    T& operator*() { return get(); }
    T* operator->() { return &get(); }

  private:
    std::uint64_t key_;
};

}  // namespace xos::sched

#endif  // C++20
