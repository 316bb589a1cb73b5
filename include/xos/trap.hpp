// Exceptions of code in the cell, handled in the cell.
//
// A handler is a C++ function that runs inside the guest, on a stack of its own, with the registers
// of the interrupted code in its hands. It may repair the cause and resume, change where the code
// goes on, or pass: then the next handler is asked, and in the end Linux, which raises the signal
// that it would have raised.
//
//     auto guard = xos::on_fault(begin, length, [](xos::trap_frame& f, void*) {
//         map_page_for(xos::page_fault_of(f).address);
//         return xos::verdict::resume;          // the access is made again
//     });
//
// Handlers may be called on any thread inside, at the same time. They are application code: system
// calls and signals are as elsewhere, but the code that was interrupted may hold malloc's lock, or
// any other. Their stack is 64 KiB a thread. One that itself faults is handled like any other code,
// nested on the same stack; one that keeps faulting ends the process with a report. Handlers of a
// range are asked before those of a vector, later registrations before earlier ones.
//
// A handler may throw: the exception goes on in the interrupted code, as if the instruction had
// thrown it. That code, and what calls it in the same file, must be compiled with
// -fnon-call-exceptions: otherwise the compiler takes for granted that a load cannot throw, and
// leaves out a `try` around it. Code that C++ exceptions cannot pass (C without unwind tables, a
// noexcept function) ends the process by std::terminate(), and so does an exception thrown because
// a local system call faulted.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <cstdint>
#include <utility>
#include <xos/types.hpp>

namespace xos {

/// The registers of the interrupted code. Changes take effect when the handler resumes.
struct trap_frame {
    std::uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    std::uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
    std::uint64_t vector;         ///< which exception
    std::uint64_t error_code;     ///< of the processor, or of Linux for its mappings; else 0
    std::uint64_t fault_address;  ///< page faults: CR2
    std::uint64_t rip, cs, rflags, rsp, ss;
};

/// Exception vectors (Intel SDM vol. 3A, table 6-1).
enum class exception : std::uint8_t {
    divide = 0,
    debug = 1,
    breakpoint = 3,
    overflow = 4,
    bound = 5,
    invalid_opcode = 6,
    device_not_available = 7,
    double_fault = 8,
    invalid_tss = 10,
    segment_not_present = 11,
    stack_segment = 12,
    general_protection = 13,
    page_fault = 14,
    floating_point = 16,
    alignment_check = 17,
    machine_check = 18,
    simd = 19,
};

enum class verdict : std::uint64_t {
    resume,  ///< go on at the frame: at the same instruction unless the handler moved `rip`
    pass,    ///< ask the next handler, and in the end Linux
};

/// Runs inside, on the thread that raised the exception. It may throw, but must not leave().
using trap_handler = verdict (*)(trap_frame& frame, void* argument);

/// Whether the library must keep the interrupted code's vector registers for the handler.
enum class handler_registers : std::uint8_t {
    all,           ///< any C++: costs one XSAVE and XRSTOR
    general_only,  ///< none: the handler was compiled with -mgeneral-regs-only, or is known not
                   ///< to touch others
};

enum class fault_kind {
    missing,          ///< nothing is mapped, or without any access
    write_protected,  ///< a write to a page that may be read
    not_executable,   ///< an instruction fetch from a page that may be read
    other,            ///< an access by code at CPL 3 to a page of the kernel side's
};

/// What a page fault was about (Intel SDM vol. 3A, 4.7).
struct page_fault {
    gva address;   ///< of the byte, not of the page
    bool present;  ///< a protection fault, not a missing page
    bool write;
    bool user;  ///< by code at CPL 3
    bool fetch;

    [[nodiscard]] fault_kind kind() const {
        if (!present) return fault_kind::missing;
        if (write) return fault_kind::write_protected;
        return fetch ? fault_kind::not_executable : fault_kind::other;
    }
};

/// What the frame that a handler of page faults has got is about. Call anywhere.
[[nodiscard]] inline page_fault page_fault_of(const trap_frame& f) {
    return {gva{f.fault_address}, (f.error_code & 1) != 0, (f.error_code & 2) != 0,
            (f.error_code & 4) != 0, (f.error_code & 16) != 0};
}

/// Ends a registration when it is destroyed, on any thread, inside or outside. It does not wait for
/// handlers that are running.
class [[nodiscard]] trap_registration {
  public:
    trap_registration() = default;
    explicit trap_registration(unsigned id) : id_(id) {}
    trap_registration(trap_registration&& other) noexcept : id_(std::exchange(other.id_, 0)) {}
    trap_registration& operator=(trap_registration&& other) noexcept {
        std::swap(id_, other.id_);
        return *this;
    }
    ~trap_registration() { reset(); }
    void reset() noexcept;

  private:
    unsigned id_ = 0;
};

/// Registers a handler for an exception, wherever inside it happens. A forked child keeps it. Call
/// on any thread, inside or outside, also before start().
/// @throws std::system_error no_room when there are 64.
trap_registration on_exception(exception which, trap_handler handler, void* argument = nullptr,
                               handler_registers registers = handler_registers::all);

/// Registers a handler for page faults on [begin, begin + length): on views (`xos/view.hpp`) and
/// also on memory that Linux manages, when Linux refuses the access. The length is in bytes, and
/// nothing need be aligned. A view must exist before its handler is registered. A forked child
/// keeps it. Call on any thread, inside or outside, also before start().
/// @throws std::system_error bad_argument for a range that is empty or wraps around, range_taken
///         when it overlaps another's, no_room when there are 64.
trap_registration on_fault(gva begin, std::size_t length, trap_handler handler,
                           void* argument = nullptr,
                           handler_registers registers = handler_registers::all);

}  // namespace xos

#endif  // C++20
