// execve: the next program gets into a cell as this one did, or runs natively, as the policy says.
//
// Whether Linux would execute the file at all is left to Linux: only what certainly can be executed
// is executed in another way than the application asked for, and when that fails, the application's
// own call is made.
#include <linux/fcntl.h>
#include <linux/mman.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/program/program_file.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using base::after;
using base::as_long;
using base::is_error;
using base::raw_syscall;
using cell::context;
using cell::position;
using cell::the_cell;
using program::follow;
using program::loading;
using program::program_file;
using program::verdict;

namespace {

struct request {
    std::uint64_t number;
    const std::uint64_t* call;
    int directory;
    std::uint64_t path, arguments, environment;
    int flags;
};

/// Bytes for vectors and strings that last until the exec.
class scratch {
  public:
    bool take(context& c, std::size_t bytes) {
        if (c.exec_scratch_size < bytes) {
            const long r =
                raw_syscall(__NR_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (is_error(r)) return false;
            if (c.exec_scratch_size)
                raw_syscall(__NR_munmap, static_cast<long>(c.exec_scratch),
                            static_cast<long>(c.exec_scratch_size));
            c.exec_scratch = static_cast<std::uint64_t>(r);
            c.exec_scratch_size = bytes;
        }
        next_ = c.exec_scratch;
        end_ = next_ + c.exec_scratch_size;
        return true;
    }
    std::uint64_t* words(std::size_t n) {
        auto* w = reinterpret_cast<std::uint64_t*>(next_);
        next_ += n * sizeof *w;
        return w;
    }
    char* bytes() const { return reinterpret_cast<char*>(next_); }
    std::size_t left() const { return end_ - next_; }
    void use(std::size_t n) { next_ += n; }

  private:
    std::uint64_t next_ = 0, end_ = 0;
};

constexpr std::size_t most_words = std::size_t{1} << 20;  // eight times what Linux lets through
constexpr std::size_t string_room = (std::size_t{128} << 10) + 3 * program_file::path_size;

/// The entries of a list that a null pointer ends. False: Linux will say what is wrong with it.
bool count_words(std::uint64_t list, std::size_t& n) {
    n = 0;
    if (!list) return true;
    std::uint64_t piece[64];
    while (n < most_words) {
        const std::uint64_t at = list + n * sizeof *piece;
        const std::size_t in_page = (page_size - at % page_size) / sizeof *piece;
        // The list may end with its page, and be misaligned.
        const std::size_t some = in_page == 0 ? 1 : in_page < 64 ? in_page : 64;
        if (!copy_in(piece, at, some * sizeof *piece)) return false;
        for (std::size_t i = 0; i < some; i++, n++) {
            if (!piece[i]) return true;
        }
    }
    return false;
}

bool copy_words(std::uint64_t* to, std::uint64_t list, std::size_t n) {
    return n == 0 || copy_in(to, list, n * sizeof *to);
}

/// The beginnings of the application's variables, which lie close together: read by pages.
class variable_heads {
  public:
    /// @param page  room for one
    explicit variable_heads(char* page) : page_(page) {}

    /// At least as much of a string as tells whether libxos has to do with it; or null if it cannot
    /// be read. Good until the next.
    const char* read(std::uint64_t string) {
        const std::uint64_t inside = string % page_size, rest = page_size - inside;
        if (string - inside != address_) {
            if (!copy_in(page_, string - inside, page_size)) return nullptr;
            address_ = string - inside;
        }
        const std::uint64_t here = rest < size ? rest : size;
        base::copy_bytes(head_, page_ + inside, here);
        bool ends = here == size;
        for (unsigned at = 0; at < here; at++) ends |= head_[at] == '\0';
        if (!ends && !copy_in(head_ + here, string + here, size - here)) return nullptr;
        return head_;
    }

  private:
    static constexpr unsigned size = 12;

    char* page_;
    std::uint64_t address_ = 1;  ///< of what is in it
    char head_[size + 1] = {};
};

/// Whether two variables, "NAME=...", have the same name.
bool same_name(const char* a, const char* b) {
    while (*a && *a == *b && *a != '=') a++, b++;
    return *a == *b && *a == '=';
}

class successor {
  public:
    successor(context& c, const request& r) : c_(c), request_(r) {}
    ~successor() {
        if (inherited_ >= 0) raw_syscall(__NR_close, inherited_);
    }
    successor(const successor&) = delete;
    successor& operator=(const successor&) = delete;

    /// False: the application's own call is the best that can be done.
    bool prepare(const program_file& file, bool own_loader, const char* path);
    long execute();

  private:
    bool make_environment(bool preload);
    bool make_arguments(const program_file& file, const char* path);
    bool add_preload(bool with_library);
    bool name_program(const program_file& file, const char* path, std::uint64_t*& to);
    const char* string(const char* a, const char* b = "");

    context& c_;
    const request& request_;
    scratch scratch_;
    std::size_t argument_count_ = 0, variable_count_ = 0;
    std::uint64_t *arguments_ = nullptr, *environment_ = nullptr;
    std::size_t reserved_ = 0;   ///< of those, variables of the application's that begin with XOS_
    std::uint64_t preload_ = 0;  ///< the application's LD_PRELOAD=...
    bool preloads_own_only_ = false;
    int inherited_ = -1;             ///< for the loader, which closes it
    bool unnamed_ = false;           ///< executed by its descriptor alone
    const char* program_ = nullptr;  ///< what Linux is to execute instead
};

/// In the scratch memory.
const char* successor::string(const char* a, const char* b) {
    char* const start = scratch_.bytes();
    char* to = start;
    for (const char* piece : {a, b}) {
        for (; *piece; piece++) *to++ = *piece;
    }
    *to++ = '\0';
    scratch_.use(static_cast<std::size_t>(to - start));
    return start;
}

bool successor::prepare(const program_file& file, bool own_loader, const char* path) {
    if (!count_words(request_.environment, variable_count_)) return false;
    if (own_loader && !count_words(request_.arguments, argument_count_)) return false;
    constexpr unsigned added = program::policy::most_variables + 16;
    const std::size_t words = argument_count_ + variable_count_ + 2 * added + page_size / 8;
    if (!scratch_.take(c_, words * sizeof(std::uint64_t) + string_room)) return false;
    environment_ = scratch_.words(variable_count_ + added);
    arguments_ = scratch_.words(argument_count_ + added);
    return make_environment(!own_loader) && (!own_loader || make_arguments(file, path));
}

bool successor::make_environment(bool with_library) {
    const auto& policy = the_cell.exec;
    // The application's go behind the room for those that libxos has kept.
    constexpr unsigned room = program::policy::most_variables + 3;
    std::uint64_t* const given = environment_ + room;
    if (!copy_words(given, request_.environment, variable_count_)) return false;
    std::size_t others = 0;
    std::uint64_t* place = nullptr;  // of LD_PRELOAD
    std::uint64_t reserved[program::policy::most_variables];
    variable_heads heads(reinterpret_cast<char*>(scratch_.words(page_size / 8)));
    for (std::size_t i = 0; i < variable_count_; i++) {
        const std::uint64_t variable = given[i];
        const char* const head = heads.read(variable);
        if (!head) return false;
        if (program::is_reserved(head)) {
            if (reserved_ == program::policy::most_variables) return false;
            reserved[reserved_++] = variable;
        } else {
            if (after(head, program::preload_variable) && !preload_) {
                preload_ = variable;
                place = given + others;
            }
            given[others++] = variable;
        }
    }
    given[others] = 0;
    // Back to front: what is in front of the application's own variables.
    std::uint64_t* first = given;
    if (!add_preload(with_library)) return false;
    if (preload_ && !place) place = --first;
    if (place) {
        // Empty, where only libxos's own was in it.
        *place = preload_ ? preload_
                          : reinterpret_cast<std::uint64_t>(string(program::preload_variable));
    }
    for (std::size_t i = reserved_; i-- > 0;) *--first = reserved[i];
    std::size_t hidden = reserved_ + (place && preloads_own_only_);
    char name[program::script_line::size];
    for (unsigned k = policy.kept_count; k-- > 0;) {
        bool replaced = false;
        for (std::size_t i = 0; i < reserved_ && !replaced; i++) {
            copy_in_string(name, reserved[i], sizeof name);
            name[sizeof name - 1] = '\0';
            replaced = same_name(name, policy.kept[k]);
        }
        if (replaced) continue;
        if (first == environment_) return false;
        *--first = reinterpret_cast<std::uint64_t>(policy.kept[k]);
        hidden++;
    }
    if (hidden % 2) {
        if (first == environment_) return false;
        *--first = reinterpret_cast<std::uint64_t>(string(program::padding_variable));
    }
    environment_ = first;
    return true;
}

/// LD_PRELOAD of the successor in preload_; zero if it needs none.
bool successor::add_preload(bool with_library) {
    const auto& policy = the_cell.exec;
    constexpr std::size_t name = sizeof program::preload_variable - 1;
    char* const whole = scratch_.bytes();
    // What the application wants is read into the far end, and joined to the front.
    constexpr std::size_t longest = std::size_t{64} << 10;
    char* const theirs = whole + longest;
    const char* others = "";
    if (preload_) {
        if (copy_in_string(theirs, preload_, longest) < 0) return false;
        others = theirs + name;
    }
    preloads_own_only_ = !*policy.without_own(others);
    for (std::size_t i = 0; i < name; i++) whole[i] = program::preload_variable[i];
    const std::size_t n = policy.join(whole + name, longest - name, with_library, others);
    if (!n) return false;
    preload_ = n > 1 ? reinterpret_cast<std::uint64_t>(whole) : 0;
    scratch_.use(name + n);
    return true;
}

/// What the program is told, and how the loader finds the file: what was looked at is executed.
bool successor::name_program(const program_file& file, const char* path, std::uint64_t*& to) {
    const auto add = [&](const char* word) { *to++ = reinterpret_cast<std::uint64_t>(word); };
    const bool by_path = request_.directory == AT_FDCWD || *path == '/';
    // The name that Linux makes up otherwise (fs/exec.c, alloc_bprm).
    base::text<64> name, number;
    name << "--program=";
    if (!by_path) {
        (name << "/dev/fd/").dec(static_cast<unsigned>(request_.directory));
        if (*path) name << "/";
    }
    add(string(name.terminated(), path));
    unnamed_ = !*path;
    if (unnamed_) add("--unnamed");
    if (file.scripts) {
        // The interpreter opens the script by this name. If the descriptor is closed by then, Linux
        // says so before.
        return by_path || !(raw_syscall(__NR_fcntl, request_.directory, F_GETFD) & FD_CLOEXEC);
    }
    constexpr long above = 64;
    inherited_ = static_cast<int>(raw_syscall(__NR_fcntl, file.fd, F_DUPFD, above));
    if (inherited_ < 0) return false;
    (number << "--descriptor=").dec(static_cast<unsigned>(inherited_));
    add(string(number.terminated()));
    return true;
}

/// xos-loader's own, and then the application's (see loader/loader_host.cpp).
bool successor::make_arguments(const program_file& file, const char* path) {
    std::uint64_t* to = arguments_;
    const auto add = [&](const char* word) { *to++ = reinterpret_cast<std::uint64_t>(word); };
    add("xos-loader");
    if (!name_program(file, path, to)) return false;
    add("--");
    if (!copy_words(to, request_.arguments, argument_count_)) return false;
    to += argument_count_;
    if (!argument_count_) add("");  // as Linux has it since 5.18
    *to = 0;
    program_ = the_cell.exec.loader;
    return true;
}

long successor::execute() {
    const auto environment = reinterpret_cast<std::uint64_t>(environment_);
    const auto program = reinterpret_cast<std::uint64_t>(program_);
    const auto arguments = reinterpret_cast<std::uint64_t>(arguments_);
    if (program_ && unnamed_) {
        // The loader sees by its own name how this Linux names such a process.
        const long fd = raw_syscall(__NR_open, as_long(program_), O_PATH | O_CLOEXEC);
        if (is_error(fd)) return fd;
        const std::uint64_t call[6] = {static_cast<std::uint64_t>(fd),
                                       reinterpret_cast<std::uint64_t>(""), arguments, environment,
                                       AT_EMPTY_PATH};
        const long result = forward(c_, __NR_execveat, call);
        raw_syscall(__NR_close, fd);
        return result;
    }
    if (program_) {
        const std::uint64_t call[6] = {program, arguments, environment};
        return forward(c_, __NR_execve, call);
    }
    std::uint64_t call[6];
    for (unsigned i = 0; i < 6; i++) call[i] = request_.call[i];
    call[request_.number == __NR_execve ? 2 : 3] = environment;
    return forward(c_, request_.number, call);
}

/// Linux does not execute what somebody may write to. A read lease asks the same question, of files
/// of one's own.
bool open_for_writing(int fd) {
    constexpr long set_signal = 10, set_lease = 1024, read_lock = 0, unlock = 2, sig_urg = 23;
    constexpr long busy = error_again;
    raw_syscall(__NR_fcntl, fd, set_signal, sig_urg);  // whose default is to be ignored
    const long r = raw_syscall(__NR_fcntl, fd, set_lease, read_lock);
    if (r == 0) raw_syscall(__NR_fcntl, fd, set_lease, unlock);
    return r == busy;
}

/// glibc's dynamic linker ignores LD_PRELOAD in a process whose ids differ (AT_SECURE).
bool ignores_preload() {
    return raw_syscall(__NR_getuid) != raw_syscall(__NR_geteuid) ||
           raw_syscall(__NR_getgid) != raw_syscall(__NR_getegid);
}

/// As this process, which may have another root directory and other rights than when it started.
bool accessible(const char* path, long wanted) {
    return raw_syscall(__NR_faccessat2, AT_FDCWD, as_long(path), wanted, AT_EACCESS) == 0;
}

enum class how { natively, outside, preload, own };

how choose(program_file& file, const char* path) {
    constexpr long read = 4, write = 2, execute = 1;
    const auto& policy = the_cell.exec;
    if (file.what == verdict::linux_decides) return how::natively;
    if (file.what == verdict::outside) return how::outside;
    // Such a tracer expects to find the program where Linux starts it, with breakpoints that stop.
    if (is_traced_from_a_cell()) {
        file.why = "is traced by a process in a cell";
        return how::outside;
    }
    if (policy.successors_fall_back && !accessible("/dev/kvm", read | write)) {
        file.why = "may not open /dev/kvm";
        return how::outside;
    }
    const bool may_preload = policy.way != loading::own && accessible(policy.library, read);
    if (file.what == verdict::unreadable) return may_preload ? how::preload : how::natively;
    if (file.what == verdict::preloadable && may_preload && !names_own_program(path) &&
        !ignores_preload()) {
        return how::preload;
    }
    if (open_for_writing(file.fd)) return how::natively;
    if (policy.way != loading::preload && accessible(policy.loader, execute)) return how::own;
    file.why = "cannot be preloaded into, and there is no loader";
    return how::outside;
}

void note_outside(const char* path, const char* why) {
    __atomic_fetch_add(&the_cell.outside_starts, 1, __ATOMIC_RELAXED);
    if (!the_cell.at_exit) return;
    base::text<4400> line;
    (line << "xos: process ").dec(static_cast<std::uint64_t>(raw_syscall(__NR_getpid)));
    line << " starts " << path << " outside: it " << why << "\n";
    line.write_to(the_cell.report_fd);
}

long natively(context& c, const request& r, const char* path) {
    if (!names_own_program(path)) return forward(c, r.number, r.call);
    const std::uint64_t call[6] = {reinterpret_cast<std::uint64_t>(the_cell.program_path),
                                   r.arguments, r.environment};
    return forward(c, __NR_execve, call);
}

long execute(context& c, const request& r) {
    char path[program_file::path_size];
    if (!the_cell.exec.governs || copy_in_string(path, r.path, sizeof path) < 0)
        return forward(c, r.number, r.call);
    program_file file;
    how way = how::natively;
    if (the_cell.exec.successors == follow::all) {
        if (names_own_program(path))
            program::inspect(file, AT_FDCWD, the_cell.program_path, 0);
        else
            program::inspect(file, r.directory, path, r.flags);
        way = choose(file, path);
    }
    if (way == how::outside) note_outside(*path ? path : "a file", file.why);
    if (way == how::own || way == how::preload) {
        successor next(c, r);
        if (next.prepare(file, way == how::own, path)) {
            const long result = next.execute();
            if (c.where == position::taken_back) return result;
        }
    }
    return natively(c, r, path);
}

long replace_program(context& c, const request& r) {
    // Ours becomes the default over exec, as every handler does; an ignored SIGTRAP must stay
    // ignored.
    const cell::kernel_sigaction& trap_action = c.actions->of[cell::sig_trap];
    if (trap_action.handler == 1) {
        raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&trap_action), 0, 8);
    }
    const bool likely = exec_is_likely(r.number, r.call);
    // A child that borrows this memory has no statistics of its own.
    if (the_cell.at_exit && !c.shares_memory_only && likely) {
        const base::lock_guard guard(the_cell.reporting);
        the_cell.at_exit("exec");
    }
    const bool ignored_sys = c.native && c.actions->of[cell::sig_sys].handler == 1;
    if (ignored_sys) restore_sys_action(c);
    if (likely) the_cell.descriptor_limit.make_real();
    const long result = execute(c, r);
    if (ignored_sys) take_sys_action();
    if (trap_action.handler == 1) {
        const auto ours = cell::trampoline_for(trap_action);
        raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&ours), 0, 8);
    }
    return result;
}

}  // namespace

bool exec_is_likely(std::uint64_t number, const std::uint64_t* a) {
    constexpr long execute = 1, at_both = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
    const bool at = number == __NR_execveat;
    const long directory = at ? static_cast<long>(a[0]) : AT_FDCWD;
    const long path = static_cast<long>(at ? a[1] : a[0]);
    const long flags = AT_EACCESS | (at ? static_cast<long>(a[4]) & at_both : 0);
    const long r = raw_syscall(__NR_faccessat2, directory, path, execute, flags);
    return r == 0 || r == error_nosys;
}

long execve(context& c, const std::uint64_t* a) {
    return replace_program(c, {__NR_execve, a, AT_FDCWD, a[0], a[1], a[2], 0});
}

long execveat(context& c, const std::uint64_t* a) {
    return replace_program(
        c, {__NR_execveat, a, static_cast<int>(a[0]), a[1], a[2], a[3], static_cast<int>(a[4])});
}

}  // namespace xos::syscall
