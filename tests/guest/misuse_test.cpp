// Calls at the wrong time or with wrong values: each says what is wrong.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <xos/error.hpp>
#include <xos/space.hpp>
#include <xos/syscall.hpp>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::string seen_in_handler;
alignas(16) char other_stack[65536];

void enter_in_handler(int) {
    seen_in_handler = std::to_string(errno_of([] { enter(); }));
}

void use_other_stack_for_signals() {
    stack_t stack{};
    stack.ss_sp = other_stack;
    stack.ss_size = sizeof other_stack;
    sigaltstack(&stack, nullptr);
}

std::error_code code_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const std::system_error& e) {
        return e.code();
    }
    return {};
}

bool is_sentence(const std::string& text) {
    return text.find("xos: ") != std::string::npos && text.size() > 25;
}

void start_with(mode m) {
    start({.mode = m});
}

std::atomic<bool> let_go{false};
void* hold(void*) {
    eventually([] { return let_go.load(); });
    return nullptr;
}

trap_registration kept[65];

}  // namespace

TEST_CASE("start and enter throw codes of libxos's own") {
    CHECK(code_of([] { leave(); }) == errc::not_inside);
    CHECK(code_of([] { (void)vm::reserve(4096); }) == errc::not_started);
    CHECK(code_of([] { adopt_signal_handlers(); }) == errc::not_started);
    CHECK(code_of([] { start({.mode = wanted_mode(), .max_vcpus = 0}); }) == errc::bad_argument);
    CHECK(code_of([] { start({.mode = wanted_mode(), .system_arena = std::size_t{1} << 50}); }) ==
          errc::bad_argument);
    // One of them cannot be had here, whatever this machine is.
    for (mode m : {mode::pvm, mode::ring0}) {
        const auto tried = code_of([m] { start_with(m); });
        if (started()) break;
        CHECK(tried == errc::mode_unavailable);
        CHECK(tried == std::errc::operation_not_supported);
    }
    ensure_cell();
    CHECK(code_of([] { start(); }) == errc::already_started);
    enter();
    const auto inside_already = code_of([] { enter(); });
    leave();
    CHECK(inside_already == errc::already_inside);
    CHECK(inside_already == std::errc::connection_already_in_progress);
    const gva at{0x2000'0000'0000};
    const auto guard = on_fault(at, 4096, [](trap_frame&, void*) { return verdict::pass; });
    CHECK(code_of([&] {
              (void)on_fault(at, 1, [](trap_frame&, void*) { return verdict::pass; });
          }) == errc::range_taken);
}

TEST_CASE("enter twice is refused") {
    ensure_cell();
    enter();
    const std::string text = thrown_by([] { enter(); });
    const bool still = inside();
    leave();
    CHECK(errno_of([] { leave(); }) == EPERM);
    CHECK(still);
    CHECK(text.starts_with(std::to_string(EALREADY)));
    CHECK(is_sentence(text));
}

TEST_CASE("leave outside is refused") {
    CHECK(errno_of([] { leave(); }) == EPERM);
    ensure_cell();
    const std::string text = thrown_by([] { leave(); });
    CHECK(text.starts_with(std::to_string(EPERM)));
    CHECK(is_sentence(text));
}

TEST_CASE("enter from a signal handler is refused") {
    handle(SIGUSR1, enter_in_handler);
    ensure_cell();
    raise(SIGUSR1);
    CHECK(seen_in_handler == std::to_string(EBUSY));
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("enter from a handler installed after the start is refused") {
    ensure_cell();
    handle(SIGUSR1, enter_in_handler);
    raise(SIGUSR1);
    CHECK(seen_in_handler == std::to_string(EBUSY));
}

TEST_CASE("starting from a signal handler is refused") {
    handle(SIGUSR1, enter_in_handler);
    raise(SIGUSR1);
    CHECK(seen_in_handler == std::to_string(EBUSY));
    CHECK_FALSE(started());
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("enter on an alternate stack is refused") {
    handle(SIGUSR1, enter_in_handler, SA_ONSTACK);
    use_other_stack_for_signals();
    ensure_cell();
    raise(SIGUSR1);
    CHECK(seen_in_handler == std::to_string(EBUSY));

    static ucontext_t here, there;
    seen_in_handler.clear();
    getcontext(&there);
    there.uc_stack.ss_sp = other_stack;
    there.uc_stack.ss_size = sizeof other_stack;
    there.uc_link = &here;
    makecontext(
        &there, [] { enter_in_handler(0); }, 0);
    swapcontext(&here, &there);
    CHECK(seen_in_handler == std::to_string(EBUSY));
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("a handler that runs in the cell is told that it is inside") {
    handle(SIGUSR1, enter_in_handler);
    in_cell([] { return raise(SIGUSR1); });
    CHECK(seen_in_handler == std::to_string(EALREADY));
}

TEST_CASE("entering again after a jump out of a handler works") {
    static sigjmp_buf back;
    handle(SIGUSR1, [](int) { siglongjmp(back, 1); });
    ensure_cell();
    if (!sigsetjmp(back, 1)) raise(SIGUSR1);
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("leave and enter in a fault handler are refused") {
    static int leaving, entering;
    const auto guard = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        leaving = errno_of([] { leave(); });
        entering = errno_of([] { enter(); });
        f.rip += 2;
        return verdict::resume;
    });
    const bool still = in_cell([] {
        asm volatile("ud2");
        return inside();
    });
    CHECK(leaving == EBUSY);
    CHECK(entering == EALREADY);
    CHECK(still);
}

TEST_CASE("enter in a host call is refused") {
    static int entering, leaving;
    in_cell([] {
        host_call([] {
            entering = errno_of([] { enter(); });
            leaving = errno_of([] { leave(); });
        });
        return 0;
    });
    CHECK(entering == EBUSY);
    CHECK(leaving == EPERM);
}

TEST_CASE("start twice is refused") {
    ensure_cell();
    const std::string text = thrown_by([] { start(); });
    CHECK(text.starts_with(std::to_string(EALREADY)));
    CHECK(is_sentence(text));
    CHECK(in_cell([] { return errno_of([] { start(); }); }) == EALREADY);
}

TEST_CASE("bad options are refused and the process goes on") {
    for (const cell_options& bad :
         {cell_options{.mode = wanted_mode(), .max_vcpus = 0},
          cell_options{.mode = wanted_mode(), .system_arena = 0},
          cell_options{.mode = wanted_mode(), .system_arena = 1 << 20},
          cell_options{.mode = wanted_mode(), .system_arena = ~std::size_t{0}}}) {
        const std::string text = thrown_by([&] { start(bad); });
        CAPTURE(bad.max_vcpus, bad.system_arena, text);
        CHECK(
            (text.starts_with(std::to_string(EINVAL)) || text.starts_with(std::to_string(ENOMEM))));
        CHECK(is_sentence(text));
        CHECK_FALSE(started());
        CHECK(current_mode() == mode::automatic);
    }
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("a mode that the machine lacks is refused and the process goes on") {
    const bool hardware = errno_of([] { start_with(mode::pvm); }) == EOPNOTSUPP;
    if (hardware) {
        CHECK(thrown_by([] { start_with(mode::pvm); }).find("auto") != std::string::npos);
        CHECK(in_cell([] { return inside(); }));
        return;
    }
    // A software KVM: pvm has started. The others are refused, in processes that have no cell yet.
    CHECK(current_mode() == mode::pvm);
}

TEST_CASE("hardware modes are refused on a software KVM") {
    for (mode m : {mode::ring0, mode::ring3}) {
        const ended e = in_child([m] {
            const std::string text = thrown_by([m] { start_with(m); });
            if (text == "nothing") return current_mode() == m ? 0 : 1;
            if (!text.starts_with(std::to_string(EOPNOTSUPP)) || !is_sentence(text)) return 2;
            start();
            enter();
            const bool was_inside = inside();
            leave();
            return current_mode() == mode::pvm && was_inside ? 0 : 3;
        });
        CAPTURE(name(m));
        CHECK(e == ended{"exit 0", ""});
    }
}

TEST_CASE("start without a free descriptor says so") {
    rlimit files, none;
    getrlimit(RLIMIT_NOFILE, &files);
    none = files;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    const std::string text = thrown_by([] { start_with(wanted_mode()); });
    setrlimit(RLIMIT_NOFILE, &files);
    CHECK(text.starts_with(std::to_string(EMFILE)));
    CHECK(is_sentence(text));
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("when no vCPU is left enter and pthread_create answer EAGAIN") {
    start({.mode = wanted_mode(), .max_vcpus = 2});
    std::vector<int> seen;
    seen.reserve(8);
    enter();
    pthread_t second, third;
    seen.push_back(pthread_create(&second, nullptr, hold, nullptr));
    seen.push_back(pthread_create(&third, nullptr, hold, nullptr));
    seen.push_back(inside());
    leave();
    // The first vCPU is free again, until another thread takes it.
    std::thread([&] { seen.push_back(errno_of([] { scoped_entry guard; })); }).join();
    std::atomic<bool> entered{false};
    std::thread outside([&] {
        enter();
        entered = true;
        eventually([] { return let_go.load(); });
        leave();
    });
    eventually([&] { return entered.load(); });
    const std::string text = thrown_by([] { enter(); });
    let_go = true;
    outside.join();
    pthread_join(second, nullptr);
    enter();
    seen.push_back(pthread_create(&third, nullptr, hold, nullptr));
    pthread_join(third, nullptr);
    leave();
    CHECK(seen == std::vector<int>{0, EAGAIN, 1, 0, 0});
    CHECK(text.starts_with(std::to_string(EAGAIN)));
    CHECK(is_sentence(text));
}

TEST_CASE("max_vcpus of 1 is enough for one thread") {
    start({.mode = wanted_mode(), .max_vcpus = 1});
    for (int i = 0; i < 3; i++) CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("calls that libxos must see cannot be answered locally") {
    const auto answer = [](long, long, long, long, long, long) -> long { return 0; };
    CHECK(errno_of([&] { answer_locally(512, answer); }) == EINVAL);
    for (unsigned number : {SYS_clone, SYS_clone3, SYS_exit, SYS_exit_group, SYS_rt_sigreturn,
                            SYS_rt_sigaction, SYS_execve, SYS_close}) {
        CAPTURE(number);
        CHECK(errno_of([&] { answer_locally(number, answer); }) == EINVAL);
    }
}

TEST_CASE("fault handlers are refused for bad ranges and when the table is full") {
    ensure_cell();
    const trap_handler pass = [](trap_frame&, void*) { return verdict::pass; };
    const gva at{0x2000'0000'0000};
    CHECK(errno_of([&] { (void)on_fault(at, 0, pass); }) == EINVAL);
    CHECK(errno_of([&] { (void)on_fault(at, ~std::size_t{0}, pass); }) == EINVAL);
    {
        const auto guard = on_fault(at, 8192, pass);
        CHECK(errno_of([&] { (void)on_fault(at + 4096, 8192, pass); }) == EEXIST);
        CHECK(errno_of([&] { (void)on_fault(at - 4096, 4097, pass); }) == EEXIST);
        CHECK(errno_of([&] { (void)on_fault(at - 4096, 1 << 20, pass); }) == EEXIST);
        CHECK(errno_of([&] { (void)on_fault(at - 4096, 4096, pass); }) == 0);
    }
    CHECK(errno_of([&] { (void)on_fault(at + 4096, 8192, pass); }) == 0);
    for (unsigned i = 0; i < 64; i++) kept[i] = on_fault(at + i * 4096, 4096, pass);
    CHECK(errno_of([&] { (void)on_fault(at - 4096, 4096, pass); }) == ENOSPC);
    for (unsigned i = 0; i < 64; i++) kept[i] = on_exception(exception::divide, pass);
    CHECK(errno_of([&] { (void)on_exception(exception::divide, pass); }) == ENOSPC);
}

TEST_CASE("views are refused before the start") {
    CHECK(errno_of([] { (void)vm::reserve(4096); }) == EPERM);
    CHECK(vm::allocate_frame() == gpa{0});
    ensure_cell();
    CHECK(errno_of([] { (void)vm::reserve(~std::size_t{0}); }) != 0);
    CHECK(errno_of([] { (void)vm::reserve(std::size_t{1} << 47); }) != 0);
    CHECK(vm::reserve(4096).value != 0);
}

TEST_CASE("edits and scans outside are refused") {
    ensure_cell();
    const gva view = vm::reserve(1 << 20);
    vm::batch b;
    b.map_new(view, 4096, vm::access::read);
    std::uint64_t bits = 0;
    CHECK(b.commit() == vm::map_result::not_inside);
    CHECK(vm::scan(view, 4096, vm::usage::dirty, false, &bits).result ==
          vm::map_result::not_inside);
    CHECK_FALSE(vm::query(view).mapped);
    CHECK(code_of([] { space outside; }) == errc::not_inside);
    const auto separated_outside = [&] {
        auto s = in_cell([] { return std::make_unique<space>(); });
        return code_of([&] { s->separate(view, space::frames::shared); });
    };
    CHECK(separated_outside() == errc::not_inside);
}

TEST_CASE("map says why it refuses") {
    ensure_cell();
    const gva view = vm::reserve(1 << 20);
    const gpa frame = vm::allocate_frame(), other = vm::allocate_frame();
    const auto seen = in_cell([&] {
        using enum vm::access;
        return std::vector<vm::map_result>{
            vm::map(view + 1, frame, read),    vm::map(view, frame + 8, read),
            vm::map(view - 4096, frame, read), vm::map(gva{0x1000}, frame, read),
            vm::map(view, frame, read),        vm::map(view, frame, read),
            vm::map(view, frame, read_write),  vm::map(view, frame, read),
            vm::map(view, other, read_write)};
    });
    using enum vm::map_result;
    CHECK(seen == std::vector{misaligned, misaligned, not_reserved, not_reserved, ok, ok, ok,
                              shrinks, shrinks});
}
