// The examples in the comments of the public headers, as they stand there: they compile.

#include <array>
#include <cstdio>
#include <vector>
#include <xos/batch.hpp>
#include <xos/cell.hpp>
#include <xos/error.hpp>
#include <xos/io_queue.hpp>
#include <xos/syscall.hpp>
#include <xos/trap.hpp>
#include <xos/view.hpp>
static long cached_pid;
[[gnu::target("general-regs-only")]] static long answer_getpid(long, long, long, long, long, long) {
    return cached_pid;
}
static void explain_groups() {}
static int count_cpus(const char*) {
    return 1;
}
static xos::verdict give_page(xos::trap_frame&, void*) {
    return xos::verdict::pass;
}
static void use(std::string_view) {}
static void copy_line(xos::batch& calls, int from, int to, std::string text) {
    std::array<char, 512> line;
    const auto got = calls.read(from, line);            // borrowed: `line` must live until submit()
    const auto put = calls.write(to, std::move(text));  // owned: a std::string, given back later
    calls.link().fsync(to);                             // only if all of the text was written
    calls.submit();
    use({line.data(), got.result().value()});  // throws if read(2) failed
    text = put.take();
    calls.clear();  // for the next turn, with the same memory
}
static void work() {}
static void answer(int in, int out, int file, std::string_view text, std::string record) {
    using namespace std::chrono_literals;
    xos::io_queue queue;
    auto got = queue.recv(in, std::string(4096, '\0'));  // owned: moved in, given back
    auto put = queue.within(50ms).send(out, text);       // borrowed: `text` must stay
    auto kept = queue.write(file, std::move(record));
    auto safe = queue.link().fsync(file);  // once all of it is written
    queue.submit();                        // all four by one crossing
    work();
    const auto size = got.result().value();  // waits; throws if recv(2) failed
    const std::string room = got.take();
    use({room.data(), size});
}
int main() {
    answer(0, 1, 2, "text", "record");
    xos::batch calls;
    copy_line(calls, 0, 1, "text");
    xos::answer_locally(SYS_getpid, answer_getpid);
    try {
        xos::start();
    } catch (const std::system_error& e) {
        if (e.code() == xos::errc::kvm_not_permitted) explain_groups();
        if (e.code() == std::errc::permission_denied) explain_groups();  // the same, portably
        std::fprintf(stderr, "%s; going on without a cell\n", e.what());
    }
    const char* path = "x";
    const int cpus = xos::host_call([&] { return count_cpus(path); });
    xos::view pages(1 << 20);
    const auto handler = xos::on_fault(pages.begin(), pages.bytes(), give_page);
    xos::enter();
    static_cast<int*>(pages.data())[5] = 1;  // give_page() maps a frame there
    const xos::view v(1 << 20);              // xos/view.hpp
    const xos::gpa f = xos::vm::allocate_frame();
    const auto done = xos::vm::map(v.begin(), f, xos::vm::access::read_write);
    if (done != xos::vm::map_result::ok) return 1;
    std::vector<xos::gva> written;
    xos::vm::batch changes;
    for (xos::gva page : written) changes.protect(page, xos::page_size, xos::vm::access::read);
    if (changes.commit() != xos::vm::map_result::ok) return cpus;
}
