#include <asm/stat.h>
#include <asm/statfs.h>
#include <elf.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/program/program_file.hpp"

namespace xos::program {

using base::as_long;
using base::basename;
using base::is_error;
using base::raw_syscall;
using base::same;

namespace {

constexpr long empty_path = AT_EMPTY_PATH, no_follow = AT_SYMLINK_NOFOLLOW, effective = AT_EACCESS;
constexpr long executable = 1;  // X_OK
// Defined here because <linux/stat.h> omits them for programs that use glibc.
constexpr unsigned type_bits = 0170000, regular = 0100000, set_user_id = 04000,
                   set_group_id = 02000, group_executable = 010;
constexpr long quietly = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

constexpr bool spacetab(char c) {
    return c == ' ' || c == '\t';
}

char* next_non_spacetab(char* first, const char* last) {
    for (; first <= last; first++) {
        if (!spacetab(*first)) return first;
    }
    return nullptr;
}

char* next_terminator(char* first, const char* last) {
    for (; first <= last; first++) {
        if (spacetab(*first) || !*first) return first;
    }
    return nullptr;
}

class descriptor {
  public:
    explicit descriptor(long fd) : fd_(static_cast<int>(fd)) {}
    ~descriptor() {
        if (fd_ >= 0) raw_syscall(__NR_close, fd_);
    }
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    bool is_open() const { return fd_ >= 0; }
    int number() const { return fd_; }
    int release() {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }

  private:
    int fd_;
};

/// Opens for reading a file named by a descriptor that may allow execution only (O_PATH).
long reopen(int fd) {
    base::text<64> path;
    (path << "/proc/self/fd/").dec(static_cast<unsigned>(fd));
    return raw_syscall(__NR_openat, AT_FDCWD, as_long(path.terminated()), quietly);
}

enum class opening { failed, unreadable, done };

struct opened_file {
    opening how;
    int fd = -1;
};

/// Checks what Linux's open_exec() checks: a regular, executable file on a file system that allows
/// execution. Opening any other kind of file could have side effects.
opened_file open_executable(int directory, const char* path, int flags) {
    struct stat status;
    const long at = flags & (empty_path | no_follow);
    if (raw_syscall(__NR_newfstatat, directory, as_long(path), as_long(&status), at) < 0 ||
        (status.st_mode & type_bits) != regular ||
        raw_syscall(__NR_faccessat2, directory, as_long(path), executable, at | effective) < 0) {
        return {opening::failed};
    }
    const bool by_number = (flags & empty_path) && !*path;
    const long fd = by_number ? reopen(directory)
                              : raw_syscall(__NR_openat, directory, as_long(path),
                                            quietly | (flags & no_follow ? O_NOFOLLOW : 0));
    if (is_error(fd)) return {opening::unreadable};
    return {opening::done, static_cast<int>(fd)};
}

bool no_new_privileges() {
    return raw_syscall(__NR_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

bool mounted_without_set_uid(int fd) {
    constexpr long nosuid = 2;
    struct statfs status;
    return raw_syscall(__NR_fstatfs, fd, as_long(&status)) == 0 && (status.f_flags & nosuid);
}

/// Returns the rights that executing the file would add to this process, or null.
const char* gained(int fd) {
    struct stat s;
    if (raw_syscall(__NR_fstat, fd, as_long(&s)) < 0) return nullptr;
    constexpr unsigned group_bits = set_group_id | group_executable;
    const char* what = nullptr;
    if ((s.st_mode & set_user_id) && s.st_uid != raw_syscall(__NR_geteuid))
        what = "is set-user-ID";
    else if ((s.st_mode & group_bits) == group_bits && s.st_gid != raw_syscall(__NR_getegid))
        what = "is set-group-ID";
    else if (raw_syscall(__NR_fgetxattr, fd, as_long("security.capability"), 0, 0) > 0)
        what = "has file capabilities";
    return what && !no_new_privileges() && !mounted_without_set_uid(fd) ? what : nullptr;
}

bool is_elf(const char* text) {
    return text[0] == ELFMAG0 && text[1] == ELFMAG1 && text[2] == ELFMAG2 && text[3] == ELFMAG3;
}

/// Whether this is the header of a 64-bit x86-64 program or dynamic linker.
bool is_x86_64(const Elf64_Ehdr& e) {
    return e.e_ident[EI_CLASS] == ELFCLASS64 && e.e_machine == EM_X86_64 &&
           (e.e_type == ET_EXEC || e.e_type == ET_DYN) && e.e_phentsize == sizeof(Elf64_Phdr) &&
           e.e_phnum > 0 && e.e_phnum <= 65536 / sizeof(Elf64_Phdr);
}

bool linker_is_usable(const char* path) {
    const descriptor file(open_executable(AT_FDCWD, path, 0).fd);
    if (!file.is_open()) return false;
    Elf64_Ehdr header;
    return raw_syscall(__NR_pread64, file.number(), as_long(&header), sizeof header, 0) ==
               sizeof header &&
           is_elf(reinterpret_cast<const char*>(header.e_ident)) && is_x86_64(header);
}

struct linked {
    bool readable = false, dynamic = false;
};

/// Reads PT_INTERP, if there is one.
linked read_linker(int fd, const Elf64_Ehdr& header, char* linker) {
    bool loads = false;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr p;
        const auto at = static_cast<long>(header.e_phoff + i * sizeof p);
        if (raw_syscall(__NR_pread64, fd, as_long(&p), sizeof p, at) != sizeof p) return {};
        loads |= p.p_type == PT_LOAD;
        if (p.p_type != PT_INTERP) continue;
        if (p.p_filesz < 2 || p.p_filesz > program_file::path_size) return {};
        const auto n = static_cast<long>(p.p_filesz);
        if (raw_syscall(__NR_pread64, fd, as_long(linker), n, static_cast<long>(p.p_offset)) != n ||
            linker[n - 1] != '\0') {
            return {};
        }
        return {true, true};
    }
    return {loads, false};
}

void judge_elf(program_file& found, int fd, const char* text) {
    Elf64_Ehdr header;
    base::copy_bytes(&header, text, sizeof header);
    if (header.e_ident[EI_CLASS] == ELFCLASS32 &&
        (header.e_machine == EM_386 || header.e_machine == EM_X86_64)) {
        found.what = program_kind::outside;
        found.why = "is a 32-bit program";
        return;
    }
    if (!is_x86_64(header)) {
        found.why = "is not an x86-64 program";
        return;
    }
    found.linker[0] = '\0';
    const linked how = read_linker(fd, header, found.linker);
    if (!how.readable) {
        found.why = "is damaged: its program headers cannot be read";
        return;
    }
    if (how.dynamic && !linker_is_usable(found.linker)) {
        found.why = "has no dynamic linker that can be run";
        return;
    }
    if (const char* rights = gained(fd)) {
        found.what = program_kind::outside;
        found.why = rights;
        return;
    }
    const bool glibc = how.dynamic && same(basename(found.linker), "ld-linux-x86-64.so.2");
    found.what = glibc ? program_kind::preloadable : program_kind::loadable;
}

}  // namespace

bool script_line::parse() {
    const char* end_of_buffer = text + size - 1;
    if (text[0] != '#' || text[1] != '!') return false;
    char* end = text;
    while (end < text + size && *end != '\n' && *end) end++;
    if (end == text + size || *end != '\n') {
        end = next_non_spacetab(text + 2, end_of_buffer);
        if (!end || !next_terminator(end, end_of_buffer)) return false;
        end = text + size - 1;
    }
    while (spacetab(end[-1])) end--;
    char* name = next_non_spacetab(text + 2, end);
    if (!name || name == end) return false;
    argument = nullptr;
    char* behind = next_terminator(name, end);
    if (behind && *behind) argument = next_non_spacetab(behind, end);
    *end = '\0';
    if (argument) *behind = '\0';
    interpreter = name;
    return true;
}

void program_file::close() {
    if (fd >= 0) raw_syscall(__NR_close, fd);
    fd = -1;
}

void inspect(program_file& found, int directory, const char* path, int flags) {
    found.close();
    found.what = program_kind::linux_decides;
    found.why = "cannot be executed";
    found.scripts = 0;
    for (;;) {
        const opened_file opened = open_executable(directory, path, flags);
        if (opened.how == opening::unreadable) found.what = program_kind::unreadable;
        if (opened.how != opening::done) return;
        descriptor file(opened.fd);
        script_line line;
        for (char& c : line.text) c = '\0';
        const long n =
            raw_syscall(__NR_pread64, file.number(), as_long(line.text), sizeof line.text, 0);
        if (n <= 0) return;
        if (is_elf(line.text)) {
            if (static_cast<std::size_t>(n) < sizeof(Elf64_Ehdr)) {
                found.why = "is truncated";
                return;
            }
            judge_elf(found, file.number(), line.text);
            if (found.what == program_kind::preloadable || found.what == program_kind::loadable)
                found.fd = file.release();
            return;
        }
        found.why = "is neither an ELF program nor a script that names its interpreter";
        if (!(line.text[0] == '#' && line.text[1] == '!')) return;
        if (found.scripts == program_file::most_scripts) return;
        script_line& kept = found.lines[found.scripts];
        for (unsigned i = 0; i < script_line::size; i++) kept.text[i] = line.text[i];
        if (!kept.parse()) return;
        found.why = "names an interpreter that cannot be executed";
        found.scripts++;
        directory = AT_FDCWD;
        path = kept.interpreter;
        flags = 0;
    }
}

}  // namespace xos::program
