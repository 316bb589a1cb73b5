#include "libxos/syscall/table.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <set>
#include <span>
#include <string>

#include "libxos/syscall/module_calls.hpp"

using namespace xos::syscall;

namespace {

constexpr auto header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

std::map<unsigned, std::string> numbers_in_header() {
    std::map<unsigned, std::string> result;
    std::ifstream in(header);
    std::string word;
    while (in >> word) {
        if (!word.starts_with("__NR_")) continue;
        unsigned number;
        if (in >> number) result[number] = word.substr(5);
    }
    return result;
}

std::set<std::string> names_with(handling wanted) {
    std::set<std::string> result;
    for (unsigned number = 0; number < table_size; ++number)
        if (const call_facts& call = lookup(number); !call.name.empty() && call.handling == wanted)
            result.emplace(call.name);
    return result;
}

std::span<const argument> arguments_of(const call_facts& call) {
    return std::span(call.arguments).first(call.argument_count);
}

bool each_is_measured(std::span<const argument> arguments, std::initializer_list<argument> pointers,
                      argument measure) {
    for (std::size_t i = 0; i < arguments.size(); ++i)
        if (std::ranges::find(pointers, arguments[i]) != pointers.end() &&
            std::ranges::find(arguments.subspan(i + 1), measure) == arguments.end())
            return false;
    return true;
}

}  // namespace

TEST_CASE("the table agrees with the installed kernel header") {
    const auto expected = numbers_in_header();
    REQUIRE(expected.size() > 300);
    // Above the header's last number the table may know more than the header, and in a gap that
    // Linux has filled since.
    constexpr unsigned uretprobe = 335, uprobe = 336;
    for (unsigned number = 0; number <= expected.rbegin()->first; ++number) {
        if ((number == uretprobe || number == uprobe) && !expected.contains(number)) continue;
        const auto found = expected.find(number);
        INFO(number);
        CHECK(lookup(number).name == (found == expected.end() ? "" : found->second));
    }
}

TEST_CASE("the table reaches to mseal") {
    CHECK(lookup(335).name == "uretprobe");
    CHECK(lookup(336).name == "uprobe");
    CHECK(lookup(451).name == "cachestat");
    CHECK(lookup(462).name == "mseal");
    for (unsigned number = 424; number <= 462; ++number) CHECK(!lookup(number).name.empty());
}

TEST_CASE("number_of finds every name that lookup returns") {
    for (unsigned number = 0; number < table_size; ++number)
        if (const call_facts& call = lookup(number); !call.name.empty())
            CHECK(number_of(call.name) == number);
    CHECK(number_of("") == std::nullopt);
    CHECK(number_of("rea") == std::nullopt);
    CHECK(number_of("no_such_call") == std::nullopt);
}

TEST_CASE("an unknown number is forwarded on the calling thread") {
    constexpr unsigned x32_read = 0x40000000;
    for (unsigned number : {400u, table_size - 1, table_size, x32_read, ~0u}) {
        const call_facts& call = lookup(number);
        CHECK(call.name.empty());
        CHECK(call.handling == handling::forward);
        CHECK(call.ring == ring_class::thread);
        CHECK(call.argument_count == 0);
    }
}

TEST_CASE("every buffer and array has its measure later in the list") {
    using enum argument;
    for (unsigned number = 0; number < table_size; ++number) {
        const auto arguments = arguments_of(lookup(number));
        INFO(lookup(number).name);
        CHECK(each_is_measured(arguments, {in_bytes, out_bytes}, size));
        CHECK(each_is_measured(arguments, {in_iovec, out_iovec, mmsghdr_in, mmsghdr_out}, count));
        CHECK(std::ranges::count(arguments, none) == 0);
    }
}

TEST_CASE("a path is resolved from the descriptor right before it") {
    using enum argument;
    for (unsigned number = 0; number < table_size; ++number) {
        const auto arguments = arguments_of(lookup(number));
        INFO(lookup(number).name);
        for (std::size_t i = 0; i < arguments.size(); ++i)
            if (arguments[i] == dirfd && lookup(number).name != "open_by_handle_at")
                CHECK((i + 1 < arguments.size() && arguments[i + 1] == path));
    }
}

TEST_CASE("libxos emulates exactly the calls that touch what it owns") {
    CHECK(names_with(handling::emulate) == std::set<std::string>{"rt_sigaction",
                                                                 "rt_sigreturn",
                                                                 "sigaltstack",
                                                                 "arch_prctl",
                                                                 "clone",
                                                                 "clone3",
                                                                 "fork",
                                                                 "vfork",
                                                                 "exit",
                                                                 "exit_group",
                                                                 "execve",
                                                                 "execveat",
                                                                 "close",
                                                                 "dup2",
                                                                 "dup3",
                                                                 "close_range",
                                                                 "getdents",
                                                                 "getdents64",
                                                                 "pkey_mprotect",
                                                                 "rseq",
                                                                 "seccomp",
                                                                 "prctl",
                                                                 "readlink",
                                                                 "readlinkat",
                                                                 "getrlimit",
                                                                 "setrlimit",
                                                                 "prlimit64",
                                                                 "mlockall",
                                                                 "shmat",
                                                                 "kill",
                                                                 "tkill",
                                                                 "tgkill",
                                                                 "mlock",
                                                                 "mlock2",
                                                                 "mbind",
                                                                 "mseal",
                                                                 "vmsplice",
                                                                 "ioctl",
                                                                 "setsockopt",
                                                                 "userfaultfd",
                                                                 "io_setup",
                                                                 "io_uring_setup",
                                                                 "io_uring_enter",
                                                                 "io_uring_register",
                                                                 "process_madvise",
                                                                 "set_mempolicy_home_node",
                                                                 "perf_event_open",
                                                                 "uprobe",
                                                                 "uretprobe",
                                                                 "setuid",
                                                                 "setgid",
                                                                 "setreuid",
                                                                 "setregid",
                                                                 "setresuid",
                                                                 "setresgid",
                                                                 "setns",
                                                                 "unshare"});
    CHECK(names_with(handling::inside_emulate) ==
          std::set<std::string>{"mmap", "mprotect", "munmap", "mremap", "madvise", "getpid",
                                "gettid", "getuid", "geteuid", "getgid", "getegid"});
    CHECK(names_with(handling::inside_forward) ==
          std::set<std::string>{"brk", "read", "recvfrom", "write", "sendto", "writev", "sendmsg"});
    CHECK(names_with(handling::refuse) == std::set<std::string>{"modify_ldt", "ioperm", "iopl"});
}

TEST_CASE("only forwarded calls may leave the calling thread") {
    for (unsigned number = 0; number < table_size; ++number)
        if (is_own(lookup(number).handling)) {
            INFO(lookup(number).name);
            CHECK(lookup(number).ring == ring_class::thread);
        }
}

TEST_CASE("directions are the kernel's") {
    using enum argument;
    CHECK(lookup(*number_of("read")).arguments[1] == out_bytes);
    CHECK(lookup(*number_of("write")).arguments[1] == in_bytes);
    CHECK(lookup(*number_of("writev")).arguments[1] == in_iovec);
    CHECK(lookup(*number_of("recvmsg")).arguments[1] == out_msghdr);
    CHECK(lookup(*number_of("accept4")).arguments[2] == inout_struct);
    CHECK(lookup(*number_of("sched_getattr")).arguments[1] == out_struct);
}

TEST_CASE("the kernel module is told what each call names") {
    const auto looks = [](const char* name) { return module_calls[*number_of(name)]; };
    const auto at = [](unsigned i, unsigned look) { return look << i * XOS_LOOK_BITS; };
    constexpr std::uint32_t made = XOS_CALL_MADE, written = 1;
    constexpr unsigned descriptor = XOS_LOOK_DESCRIPTOR;
    CHECK(looks("getppid") == made);
    CHECK(looks("close") == 0);
    CHECK(looks("mmap") == 0);
    CHECK(looks("read") == (made | descriptor | at(1, XOS_LOOK_NEXT | written)));
    CHECK(looks("sendto") == (made | descriptor | at(1, XOS_LOOK_NEXT) | at(4, XOS_LOOK_NEXT)));
    CHECK(looks("writev") == (made | descriptor | at(1, XOS_LOOK_BUFFERS)));
    CHECK(looks("recvmsg") == (made | descriptor | at(1, XOS_LOOK_MESSAGE | written)));
    CHECK(looks("sendmmsg") == (made | descriptor | at(1, XOS_LOOK_MESSAGES)));
    CHECK(looks("openat") == (made | descriptor | at(1, XOS_LOOK_OPENED)));
    CHECK(looks("unlinkat") == (made | descriptor | at(1, XOS_LOOK_START)));
    CHECK(looks("mincore") == (made | XOS_LOOK_NEXT | at(2, XOS_LOOK_START | written)));
    CHECK(looks("futex") ==
          (made | XOS_LOOK_FUTEX | at(3, XOS_LOOK_START) | at(4, XOS_LOOK_FUTEX)));
    // The module refuses a list in which a look lacks the argument beside it.
    for (const std::uint32_t call : module_calls) {
        const unsigned first = call & 15, sixth = call >> 20 & 15;
        CHECK(first / 2 * 2 != XOS_LOOK_PREVIOUS);
        CHECK((sixth < XOS_LOOK_NEXT || sixth == XOS_LOOK_DESCRIPTOR));
    }
    // A call that Linux carries out and whose arguments libxos looks at, the module looks at, too.
    for (unsigned number = 0; number < table_size; ++number) {
        const looked_at& what = arguments_to_look_at[number];
        if (!(module_calls[number] & made) || lookup(number).name == "ptrace") continue;
        INFO(lookup(number).name);
        for (unsigned i = 0; i < lookup(number).argument_count; ++i)
            CHECK((what.descriptors >> i & 1) ==
                  ((module_calls[number] >> i * XOS_LOOK_BITS & 15) == descriptor));
    }
}
