#include "tests/guest/probe.hpp"

#include <cstdio>
#include <cstdlib>

extern "C" {
extern const char xos_probe_read[], xos_probe_write[], xos_probe_refused[];
bool xos_try_read(std::uint64_t);
bool xos_try_write(std::uint64_t);
bool xos_try_execute(std::uint64_t);
extern const char xos_probe_return[];
}

// Each answers 1, or 0 by way of the handler below.
asm(R"(
        .text
        .globl xos_try_read, xos_try_write, xos_try_execute
        .globl xos_probe_read, xos_probe_write, xos_probe_refused, xos_probe_return
xos_try_read:
xos_probe_read:
        movb    (%rdi), %al
        movl    $1, %eax
        ret
xos_try_write:
xos_probe_write:
        lock addb $0, (%rdi)
        movl    $1, %eax
        ret
xos_try_execute:
        subq    $8, %rsp
        call    *%rdi
xos_probe_return:
        addq    $8, %rsp
        movl    $1, %eax
        ret
xos_probe_refused:
        xorl    %eax, %eax
        ret
)");

namespace xos::test {

namespace {

std::uint64_t address_of(const char* label) {
    return reinterpret_cast<std::uint64_t>(label);
}

verdict answer_no(trap_frame& f, void*) {
    if (f.rip == address_of(xos_probe_read) || f.rip == address_of(xos_probe_write)) {
        f.rip = address_of(xos_probe_refused);
        return verdict::resume;
    }
    const auto* top = reinterpret_cast<const std::uint64_t*>(f.rsp);
    if (f.rip == f.fault_address && *top == address_of(xos_probe_return)) {
        f.rsp += 16;
        f.rip = address_of(xos_probe_refused);
        return verdict::resume;
    }
    return verdict::pass;
}

}  // namespace

void must(vm::map_result r) {
    if (r == vm::map_result::ok) return;
    std::fprintf(stderr, "an edit of a view is refused: %s\n", vm::to_string(r));
    std::abort();
}

trap_registration probe_accesses() {
    return on_exception(exception::page_fault, answer_no);
}

bool can_read(gva a) {
    return xos_try_read(a.value);
}
bool can_write(gva a) {
    return xos_try_write(a.value);
}
bool can_execute(gva a) {
    return xos_try_execute(a.value);
}

}  // namespace xos::test
