// The smallest cell: a thread enters, takes a page fault of its own, and leaves.
#include <cstdio>
#include <xos/cell.hpp>
#include <xos/stats.hpp>
#include <xos/trap.hpp>
#include <xos/view.hpp>

static xos::verdict give_page(xos::trap_frame& frame, void*) {
    const auto page = xos::page_fault_of(frame).address.align_down(xos::page_size);
    const auto mapped = xos::vm::map(page, xos::vm::allocate_frame(), xos::vm::access::read_write);
    return mapped == xos::vm::map_result::ok ? xos::verdict::resume : xos::verdict::pass;
}

int main() {
    xos::start();
    const xos::view view(1 << 20);
    const auto handler = xos::on_fault(view.begin(), view.bytes(), give_page);

    xos::enter();  // the same function, the same stack: now on a vCPU
    auto* numbers = static_cast<int*>(view.data());
    for (int i = 0; i < 100'000; i++) numbers[i] = i;  // 98 page faults, no exit to Linux
    std::printf("in %s: numbers[99999] = %d\n", xos::name(xos::current_mode()), numbers[99'999]);
    xos::leave();

    std::fputs(xos::to_string(xos::stats()).c_str(), stdout);
}
