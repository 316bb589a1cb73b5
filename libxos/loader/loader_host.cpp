// The loader: puts an unmodified program of any kind in the cell from its first instruction on.
//
//     xos-loader --program=PATH [--file=PATH | --descriptor=N] [--unnamed] -- ARGUMENT...
//
// PATH is the name that the program is told, and the file unless --file or --descriptor names
// another (the descriptor is closed after use). --unnamed says that PATH is made up, because the
// program was executed by its descriptor. The arguments are all of the program's; the first is its
// name. `xos run` prepares the environment (api/face_host.cpp). Linux has already done what does
// not depend on the file: stack, vDSO, most of the auxiliary vector, descriptors, signals.
#include <elf.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>

#include "libxos/api/face.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/loader/process.hpp"
#include "libxos/program/program_file.hpp"

extern "C" {
// Defined by ld.
[[gnu::visibility("hidden")]] extern const char __ehdr_start[];
[[gnu::visibility("hidden")]] extern void (*const __init_array_start[])(),
    (*const __init_array_end[])();
[[noreturn]] void xos_start_program(std::uint64_t stack, std::uint64_t entry);
}

namespace {

using namespace xos;
using base::after;
using base::as_long;
using base::raw_syscall;
using base::same;

constexpr int not_executable = 126, not_found = 127;

struct command {
    const char* name = nullptr;
    const char* file = nullptr;
    int descriptor = -1;
    bool unnamed = false;
    unsigned own_arguments = 0;  ///< up to and including "--"
};

[[noreturn]] void refuse(const char* name, const char* why, int status) {
    base::text<4600> line;
    line << name << ": " << why;
    api::give_up(line.terminated(), "", 0, status);
}

command parse(const loader::start_vectors& own) {
    command c;
    for (unsigned i = 1; i < own.argument_count; i++) {
        const char* word = own.arguments[i];
        if (const char* value = after(word, "--program="))
            c.name = value;
        else if (const char* value = after(word, "--file="))
            c.file = value;
        else if (const char* value = after(word, "--descriptor=");
                 value && base::parse_number(value, c.descriptor))
            continue;
        else if (same(word, "--unnamed"))
            c.unnamed = true;
        else if (same(word, "--") && c.name && i + 1 < own.argument_count) {
            c.own_arguments = i + 1;
            return c;
        } else
            break;
    }
    api::give_up("xos-loader is started by `xos run`, and by programs in a cell",
                 "run `xos run -- PROGRAM`", 0);
}

/// Linux 6.14, and older ones with that change, name a process whose program was executed by
/// descriptor after the file; others use the descriptor's number. The loader was executed so, too,
/// and its own name tells.
bool names_process_by_file() {
    char name[16] = {};
    raw_syscall(__NR_prctl, PR_GET_NAME, as_long(name));
    int number;
    return !base::parse_number(name, number);
}

/// Does what Linux does with a script: runs its interpreter, with the script's name among the
/// arguments. It uses another exec, so that the strings are in order again.
[[noreturn]] void run_script(const program::program_file& found, const command& c,
                             const loader::start_vectors& own) {
    constexpr unsigned most_added = 2 * program::program_file::most_scripts + 8;
    const auto bytes = static_cast<long>((own.argument_count + most_added) * sizeof(char*));
    const long memory = raw_syscall(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base::is_error(memory)) refuse(c.name, "no memory for its arguments", api::own_failure);
    auto* words = reinterpret_cast<const char**>(memory);
    base::text<4200> program, file;
    program << "--program=" << c.name;
    file << "--file=" << found.lines[found.scripts - 1].interpreter;
    *words++ = own.arguments[0];
    *words++ = program.terminated();
    *words++ = file.terminated();
    if (c.unnamed && names_process_by_file()) *words++ = "--unnamed";
    *words++ = "--";
    for (unsigned i = found.scripts; i-- > 0;) {
        *words++ = found.lines[i].interpreter;
        if (found.lines[i].argument) *words++ = found.lines[i].argument;
    }
    *words++ = c.name;
    for (unsigned i = c.own_arguments + 1; i < own.argument_count; i++) *words++ = own.arguments[i];
    *words = nullptr;
    const char* itself = cell::the_cell.program.policy.loader;
    if (!*itself) itself = reinterpret_cast<const char*>(own.value(AT_EXECFN));
    const long r = raw_syscall(__NR_execve, as_long(itself), memory, as_long(own.environment));
    api::give_up("the loader cannot execute itself for a script", itself, static_cast<int>(-r));
}

[[noreturn]] void execute_outside(const program::program_file& found, const command& c,
                                  const loader::start_vectors& started) {
    const long arguments = as_long(started.arguments), variables = as_long(started.environment);
    const long r =
        c.unnamed
            ? raw_syscall(__NR_execveat, found.fd, as_long(""), arguments, variables, AT_EMPTY_PATH)
            : raw_syscall(__NR_execve, as_long(c.file ? c.file : c.name), arguments, variables);
    api::give_up("the program cannot be executed outside", c.name, static_cast<int>(-r));
}

void map_program(const program::program_file& found, const command& c, loader::image& main,
                 loader::image& linker) {
    long error = 0;
    const auto where = *found.linker ? loader::placement::program : loader::placement::library;
    if (const char* wrong = loader::map_image(main, found.fd, where, error))
        refuse(c.name, wrong, not_executable);
    if (!*found.linker) return;
    const long fd = raw_syscall(__NR_openat, AT_FDCWD, as_long(found.linker), O_RDONLY | O_CLOEXEC);
    const char* wrong = "it cannot be opened";
    if (fd >= 0)
        wrong = loader::map_image(linker, static_cast<int>(fd), loader::placement::library, error);
    if (wrong) refuse(found.linker, wrong, not_executable);
    raw_syscall(__NR_close, fd);
}

/// Gets the path of an open file; empty when it has none.
void path_of(int fd, char (&path)[program::program_file::path_size]) {
    base::text<64> link;
    (link << "/proc/self/fd/").dec(static_cast<unsigned>(fd));
    const long n =
        raw_syscall(__NR_readlink, as_long(link.terminated()), as_long(path), sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
}

[[noreturn]] void load(const loader::start_vectors& own) {
    const command c = parse(own);
    const api::wishes wishes = api::wishes_from(own.environment);
    program::program_file found;
    const char* path = c.file ? c.file : c.name;
    if (c.descriptor >= 0)
        program::inspect(found, c.descriptor, "", AT_EMPTY_PATH);
    else
        program::inspect(found, AT_FDCWD, path, 0);
    using program::program_kind;
    if (found.what != program_kind::preloadable && found.what != program_kind::loadable) {
        const bool there = raw_syscall(__NR_faccessat, AT_FDCWD, as_long(path), 0) == 0;
        refuse(c.name, there || c.descriptor >= 0 ? found.why : "not found",
               there || c.descriptor >= 0 ? not_executable : not_found);
    }
    if (found.scripts) run_script(found, c, own);

    loader::image main, linker;
    map_program(found, c, main, linker);
    const loader::image* dynamic = *found.linker ? &linker : nullptr;
    if (c.descriptor >= 0) raw_syscall(__NR_close, c.descriptor);

    cell::the_cell.program.policy.hide(own.environment);
    const auto program = loader::pass_on(
        own,
        {.program = main, .linker = dynamic, .name = c.name, .own_arguments = c.own_arguments});
    auto& own_path = cell::the_cell.program.path;
    path_of(found.fd, own_path);
    const bool by_file = c.unnamed && names_process_by_file();
    // Where Linux still says that this is the loader, libxos answers in its place.
    if (loader::tell_linux(program, main, found.fd, by_file ? own_path : c.name)) *own_path = '\0';
    const auto stack = reinterpret_cast<std::uint64_t>(program.base);
    if (main.executable_stack) loader::make_stack_executable(stack);
    if (!api::start_cell(wishes)) execute_outside(found, c, program);
    found.close();
    api::enter_cell();
    xos_start_program(stack, dynamic ? linker.entry : main.entry);
}

void relocate(const Elf64_Dyn* dynamic) {
    const auto bias = reinterpret_cast<std::uint64_t>(__ehdr_start);
    std::uint64_t table = 0, bytes = 0;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_RELA) table = dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_RELASZ) bytes = dynamic->d_un.d_val;
    }
    const auto* r = reinterpret_cast<const Elf64_Rela*>(bias + table);
    for (; bytes >= sizeof *r; bytes -= sizeof *r, r++) {
        if (ELF64_R_TYPE(r->r_info) == R_X86_64_RELATIVE)
            *reinterpret_cast<std::uint64_t*>(bias + r->r_offset) =
                bias + static_cast<std::uint64_t>(r->r_addend);
    }
}

}  // namespace

extern "C" [[noreturn]] void xos_loader_start(std::uint64_t* stack, const Elf64_Dyn* dynamic) {
    relocate(dynamic);
    for (auto construct = __init_array_start; construct < __init_array_end; construct++)
        (*construct)();
    load(loader::start_vectors(stack));
}
