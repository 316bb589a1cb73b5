#include <linux/fcntl.h>

#include <initializer_list>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/program/launch.hpp"
#include "libxos/program/sanitizers.hpp"

namespace xos::program {

using base::as_long;
using base::raw_syscall;

namespace {

constexpr long executable = 1, writable = 2, readable = 4;

bool accessible(const char* path, long wanted) {
    return raw_syscall(__NR_faccessat2, AT_FDCWD, as_long(path), wanted, AT_EACCESS) == 0;
}

/// Linux refuses to execute a file that is open for writing. Requesting a read lease asks the same
/// question, but only for files that this user owns.
bool open_for_writing(int fd) {
    constexpr long set_signal = 10, set_lease = 1024, read_lock = 0, unlock = 2, sig_urg = 23;
    constexpr long busy = -11;
    raw_syscall(__NR_fcntl, fd, set_signal, sig_urg);  // ignored by default
    const long r = raw_syscall(__NR_fcntl, fd, set_lease, read_lock);
    if (r == 0) raw_syscall(__NR_fcntl, fd, set_lease, unlock);
    return r == busy;
}

/// glibc's dynamic linker ignores LD_PRELOAD in a process whose ids differ (AT_SECURE).
bool ignores_preload() {
    return raw_syscall(__NR_getuid) != raw_syscall(__NR_geteuid) ||
           raw_syscall(__NR_getgid) != raw_syscall(__NR_getegid);
}

/// libxos-preload.so would come before a library that must be loaded first.
bool works_only_in_loader(const program_file& file, const policy& wanted) {
    return wanted.way == loading::automatic && needs_first_library(file.fd) &&
           accessible(wanted.loader, executable);
}

}  // namespace

launch_plan plan_launch(const program_file& file, const policy& wanted, const surroundings& here) {
    if (file.what == program_kind::linux_decides)
        return {way::natively, obstacle::none, file.why, ""};
    if (file.what == program_kind::outside) return {way::outside, obstacle::program, file.why, ""};
    // A tracer in a cell expects the program where Linux starts it, with breakpoints that work.
    if (here.traced_from_a_cell)
        return {way::outside, obstacle::tracer, "is traced by a process in a cell", ""};
    if (here.must_have_kvm && !accessible("/dev/kvm", readable | writable))
        return {way::outside, obstacle::device, "may not open /dev/kvm", ""};
    const bool may_preload = wanted.way != loading::own && accessible(wanted.library, readable);
    if (file.what == program_kind::unreadable) {
        if (may_preload) return {way::preload, obstacle::none, file.why, ""};
        return {way::natively, obstacle::unreadable, file.why, ""};
    }
    if (file.what == program_kind::preloadable && may_preload && !here.is_own_program &&
        !ignores_preload() && !works_only_in_loader(file, wanted)) {
        return {way::preload, obstacle::none, file.why, ""};
    }
    if (open_for_writing(file.fd)) return {way::natively, obstacle::none, file.why, ""};
    constexpr const char* no_way = "cannot be preloaded into, and there is no loader";
    if (wanted.way == loading::preload) return {way::outside, obstacle::needs_loader, no_way, ""};
    if (!accessible(wanted.loader, executable))
        return {way::outside, obstacle::loader_missing, no_way, ""};
    return {way::own, obstacle::none, file.why, wanted.loader};
}

bool start_request::is_by_path() const {
    return directory == AT_FDCWD || *path == '/';
}

char* loader_words::make(const start_request& asked, int descriptor, char* text) {
    count = 0;
    const auto string = [&](const char* beginning, const char* rest) {
        list[count++] = text;
        for (const char* piece : {beginning, rest}) {
            for (; *piece; piece++) *text++ = *piece;
        }
        *text++ = '\0';
    };
    // Linux makes up the same name (fs/exec.c, alloc_bprm).
    base::text<64> name, number;
    name << "--program=";
    if (!asked.is_by_path()) {
        (name << "/dev/fd/").dec(static_cast<unsigned>(asked.directory));
        if (!asked.is_unnamed()) name << "/";
    }
    list[count++] = "xos-loader";
    string(name.terminated(), asked.path);
    if (asked.is_unnamed()) list[count++] = "--unnamed";
    if (descriptor >= 0) {
        (number << "--descriptor=").dec(static_cast<unsigned>(descriptor));
        string(number.terminated(), "");
    }
    list[count++] = "--";
    return text;
}

}  // namespace xos::program
