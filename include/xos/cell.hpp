// Entering and leaving the cell.
//
// A cell is this process running on virtual CPUs of its own. `enter()` returns inside the guest:
// same function, same stack, same memory, same thread; from then on page faults, exceptions and
// `syscall` instructions of this thread reach libxos first. `leave()` returns as an ordinary Linux
// thread.
//
//     xos::start();                 // once; xos::enter() does it with default options if you don't
//     {
//         xos::scoped_entry inside; // this thread now runs on a vCPU
//         std::puts("hello");       // write(2) is forwarded to Linux by the same thread
//     }                             // and now it does not
//
// Threads created inside start inside. Every thread has its own vCPU, taken from a pool.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <xos/mode.hpp>
#include <xos/residency.hpp>
#include <xos/transport.hpp>

namespace xos {

/// What a cell is made with. The defaults suit a service.
struct cell_options {
    xos::mode mode = xos::mode::automatic;
    /// Threads that may be inside at the same time. At least 1, at most 4096 and what KVM allows
    /// (KVM_CAP_MAX_VCPUS).
    unsigned max_vcpus = 1024;
    /// Bytes of address space that libxos keeps for itself, for page tables and 100 KiB a vCPU. It
    /// takes at least 52 MiB and those 100 KiB for each vCPU. Memory is used as needed.
    std::size_t system_arena = std::size_t{160} << 20;
    /// How many bytes of private anonymous memory mmap and its family serve inside, without an
    /// exit, at most; 0: Linux serves it all. Nothing is reserved before the first such call. The
    /// default is half of the machine's memory.
    std::size_t process_arena = ~std::size_t{0};
    /// How the process arena becomes resident.
    residency process_pager = residency::system;
    /// Pages of 4 KiB, for residency::window.
    unsigned process_window = 64;
    /// Whether brk is served inside, too. While a thread is inside, no thread outside may then use
    /// brk, nor malloc, which uses it. This is for programs that are inside as a whole.
    bool serve_break = false;
    /// Bytes of page frames for views (`xos/vm.hpp`), rounded up to 2 MiB. They take address space
    /// from the first vm::reserve() on, and memory from the first use of a frame.
    std::size_t frame_arena = std::size_t{64} << 20;
    /// How forwarded calls reach Linux. `module` is an error where there is no usable kernel
    /// module.
    xos::transport transport = xos::transport::automatic;
    /// A forked child first runs natively. It enters a VM of its own when it has made 64 system
    /// calls, has lived a millisecond, or needs one. A child that execs before never pays for a VM.
    /// Until then functions of libxos must not be called in the child. Where mmap's family has
    /// taken rights away inside, of which Linux does not know, a child has its VM from the start.
    bool native_children = false;
};

/// Makes this process a cell; no thread enters by that. Call once, outside, on any thread but not
/// in a signal handler. There is no stop: a process is a cell until it ends or executes another
/// program.
/// @throws std::system_error with a code that says what is missing (`xos/error.hpp`: no_kvm,
///         kvm_not_permitted, mode_unavailable, ...) and a text that says what to do about it;
///         bad_argument for an option out of range; already_started the second time;
///         in_signal_handler. The process then goes on as it was.
void start(const cell_options& options = {});

/// Whether start() has succeeded in this process. A forked child has its parent's answer. Call
/// anywhere.
[[nodiscard]] bool started() noexcept;

/// Continues the calling thread inside the guest, on a vCPU from the pool. It first starts the cell
/// with default options if that has not been done. In a child that was forked outside, the first
/// call makes a VM over the copied memory. Call outside, on any thread but not in a signal handler.
/// @throws std::system_error already_inside, in_signal_handler, in_host_call, no_vcpu when
///         cell_options::max_vcpus threads are inside, or what start() throws; the thread goes on
///         outside.
void enter();

/// Continues the calling thread as an ordinary Linux thread; its vCPU goes back to the pool. Call
/// inside, not in a fault handler.
/// @throws std::system_error not_inside, in_fault_handler.
void leave();

/// Notices signal handlers that a thread outside has installed since the start. sigaction(2) in
/// host mode goes past libxos. Each thread's first enter() looks for such handlers. Those that are
/// installed outside later reach threads inside only after this call. Handlers installed inside, or
/// before start(), need nothing. Call outside.
/// @throws std::system_error not_started.
void adopt_signal_handlers();

/// Whether the calling thread is inside the guest. Call anywhere; false in a host_call().
[[nodiscard]] bool inside() noexcept;

/// The mode of this process's cell; `mode::automatic` before start(). Call anywhere.
[[nodiscard]] mode current_mode() noexcept;

/// `exit` or `module`; `automatic` before start(). Call anywhere.
[[nodiscard]] transport current_transport() noexcept;

/// Why `automatic` took that mode, as a sentence for people. Call anywhere.
[[nodiscard]] std::string mode_reason();

/// The thread is inside for the length of a scope: enter(), and leave() unless it has left already.
class [[nodiscard]] scoped_entry {
  public:
    scoped_entry() { enter(); }
    ~scoped_entry() {
        if (inside()) leave();
    }
    scoped_entry(const scoped_entry&) = delete;
    scoped_entry& operator=(const scoped_entry&) = delete;
};

namespace detail {
void host_call(void (*fn)(void*), void* argument);
}

/// Runs a callable in host mode on the calling thread: one exit. Outside it is a plain call. It is
/// for work that must see the host's state:
///
///     const int cpus = xos::host_call([&] { return count_cpus(path); });
///
/// Call inside or outside, also in a fault handler. The callable runs on a stack of 100 KiB. It
/// must not enter, leave or jump out (longjmp). Signals wait until it has returned.
/// @return what the callable returns, by value.
/// @throws what the callable throws.
template <class F>
requires std::invocable<F>
auto host_call(F&& f) {
    using result = std::remove_cvref_t<std::invoke_result_t<F>>;
    constexpr bool returns = !std::is_void_v<result>;
    struct {
        std::remove_reference_t<F>* callable;
        std::optional<std::conditional_t<returns, result, std::monostate>> value;
        std::exception_ptr thrown;
    } call{std::addressof(f), {}, {}};
    // Nothing unwinds through the exit.
    detail::host_call(
        [](void* argument) {
            auto& c = *static_cast<decltype(call)*>(argument);
            try {
                if constexpr (returns)
                    c.value.emplace(std::invoke(std::forward<F>(*c.callable)));
                else
                    std::invoke(std::forward<F>(*c.callable));
            } catch (...) {
                c.thrown = std::current_exception();
            }
        },
        &call);
    if (call.thrown) std::rethrow_exception(std::move(call.thrown));
    if constexpr (returns) return std::move(*call.value);
}

}  // namespace xos

#endif  // C++20
