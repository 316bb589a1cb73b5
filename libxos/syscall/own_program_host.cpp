// Answers for /proc/self/exe when Linux names the loader there (telling Linux takes a privilege).
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using cell::context;
using cell::the_cell;

namespace {

/// Returns true, with the answer in `result`, if the link leads to this process's own program.
bool answered(std::uint64_t path, std::uint64_t to, std::uint64_t size, long& result) {
    if (!*the_cell.program.path) return false;
    char name[40];
    if (copy_in_string(name, path, sizeof name) < 0 || !names_own_program(name)) return false;
    const auto wanted = static_cast<std::int32_t>(size);
    std::size_t n = base::length(the_cell.program.path);
    if (wanted <= 0) {
        result = -base::error::inval;
        return true;
    }
    if (n > static_cast<std::size_t>(wanted)) n = static_cast<std::size_t>(wanted);
    result = copy_out(to, the_cell.program.path, n) ? static_cast<long>(n) : -base::error::fault;
    return true;
}

}  // namespace

bool names_own_program(const char* path) {
    if (!*the_cell.program.path) return false;
    const char* rest = base::after(path, "/proc/");
    if (!rest) return false;
    base::text<24> id;
    id.dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    for (const char* name : {"self", "thread-self", id.terminated()}) {
        const char* tail = base::after(rest, name);
        if (tail && base::same(tail, "/exe")) return true;
    }
    return false;
}

long readlink(context& c, const std::uint64_t* a) {
    long result = 0;
    return answered(a[0], a[1], a[2], result) ? result : forward(c, __NR_readlink, a);
}

long readlinkat(context& c, const std::uint64_t* a) {
    long result = 0;
    return answered(a[1], a[2], a[3], result) ? result : forward(c, __NR_readlinkat, a);
}

}  // namespace xos::syscall
