#include <linux/capability.h>
#include <linux/mman.h>
#include <linux/prctl.h>

#include "libxos/api/rseq.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/loader/process.hpp"
#include "xos/types.hpp"

extern "C" {
// Defined by ld.
[[gnu::visibility("hidden")]] extern const char __ehdr_start[];
}

namespace xos::loader {

using base::as_long;
using base::is_error;
using base::raw_syscall;

namespace {

std::uint64_t count(char** list) {
    std::uint64_t n = 0;
    while (list[n]) n++;
    return n;
}

std::uint64_t address(const void* p) {
    return reinterpret_cast<std::uint64_t>(p);
}

/// Computes Linux's bounds of a list of strings that lie behind each other.
void bounds(char** list, std::uint64_t n, std::uint64_t nothing, __u64& begin, __u64& end) {
    begin = end = nothing;
    if (!n) return;
    begin = address(list[0]);
    end = address(list[n - 1]) + base::length(list[n - 1]) + 1;
    // Somebody has moved the strings and changed their order: Linux would show what lies between.
    if (end < begin) end = begin;
}

bool has_capability(unsigned which) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    if (raw_syscall(__NR_capget, as_long(&header), as_long(data)) < 0) return false;
    return data[which / 32].effective >> (which % 32) & 1;
}

int protection_of(unsigned flags) {
    return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) |
           (flags & PF_X ? PROT_EXEC : 0);
}

/// Replaces one segment of the loader by anonymous memory with the same contents, in one step,
/// because this code is in it.
bool detach_segment(std::uint64_t begin, std::uint64_t end, int protection) {
    const auto bytes = static_cast<long>(end - begin);
    const long copy = raw_syscall(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (is_error(copy)) return false;
    base::copy_bytes(reinterpret_cast<void*>(copy), reinterpret_cast<const void*>(begin),
                     static_cast<std::size_t>(bytes));
    constexpr long replace = MREMAP_MAYMOVE | MREMAP_FIXED;
    return raw_syscall(__NR_mprotect, copy, bytes, protection) == 0 &&
           !is_error(
               raw_syscall(__NR_mremap, copy, bytes, bytes, replace, static_cast<long>(begin)));
}

/// Linux changes /proc/self/exe only when nothing of the old file is mapped any more.
bool detach_from_file() {
    const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(__ehdr_start);
    const std::uint64_t bias = address(elf);
    const auto* p = reinterpret_cast<const Elf64_Phdr*>(bias + elf->e_phoff);
    constexpr unsigned most = 16;
    struct {
        std::uint64_t begin, end;
        int protection;
    } segments[most];
    unsigned n = 0;
    for (unsigned i = 0; i < elf->e_phnum && n < most; i++) {
        if (p[i].p_type != PT_LOAD || !p[i].p_filesz) continue;
        const std::uint64_t begin = bias + p[i].p_vaddr;
        segments[n++] = {begin & ~(page_size - 1),
                         (begin + p[i].p_filesz + page_size - 1) & ~(page_size - 1),
                         protection_of(p[i].p_flags)};
    }
    for (unsigned i = 0; i < n; i++) {
        if (!detach_segment(segments[i].begin, segments[i].end, segments[i].protection))
            return false;
    }
    return true;
}

/// The heap follows the program. For a program that lies among the libraries, the heap stays where
/// Linux has put the loader's, because the loader lies there, too.
std::uint64_t heap_of(const image& main) {
    if (main.among_libraries) return static_cast<std::uint64_t>(raw_syscall(__NR_brk, 0));
    const std::uint64_t behind = (main.end + page_size - 1) & ~(page_size - 1);
    return behind + page_size + random_pages(13) * page_size;
}

}  // namespace

start_vectors::start_vectors(std::uint64_t* stack)
    : base(stack),
      argument_count(*stack),
      arguments(reinterpret_cast<char**>(stack + 1)),
      environment(arguments + argument_count + 1),
      auxiliary(reinterpret_cast<Elf64_auxv_t*>(environment + count(environment) + 1)) {}

Elf64_auxv_t* start_vectors::find(std::uint64_t type) const {
    for (Elf64_auxv_t* a = auxiliary; a->a_type != AT_NULL; a++) {
        if (a->a_type == type) return a;
    }
    return nullptr;
}

std::uint64_t start_vectors::value(std::uint64_t type) const {
    const Elf64_auxv_t* a = find(type);
    return a ? a->a_un.a_val : 0;
}

start_vectors pass_on(const start_vectors& own, const program_start& start) {
    const auto set = [&](std::uint64_t type, std::uint64_t value) {
        if (Elf64_auxv_t* a = own.find(type)) a->a_un.a_val = value;
    };
    set(AT_PHDR, start.program.headers);
    set(AT_PHNUM, start.program.header_count);
    set(AT_ENTRY, start.program.entry);
    set(AT_BASE, start.linker ? start.linker->bias : 0);
    set(AT_EXECFN, address(start.name));

    const std::uint64_t arguments = own.argument_count - start.own_arguments;
    const std::uint64_t variables = count(own.environment);
    std::uint64_t pairs = 0;
    while (own.auxiliary[pairs++].a_type != AT_NULL) {
    }
    std::uint64_t* const end = reinterpret_cast<std::uint64_t*>(own.auxiliary + pairs);
    const std::uint64_t words = 1 + arguments + 1 + variables + 1 + 2 * pairs;
    std::uint64_t* const base =
        reinterpret_cast<std::uint64_t*>(address(end - words) & ~std::uint64_t{15});
    // The auxiliary vector stays, or moves down by one word for alignment, over the null pointer
    // that was before it.
    std::uint64_t* to = base + words - 2 * pairs;
    const auto* auxiliary = reinterpret_cast<const std::uint64_t*>(own.auxiliary);
    for (std::uint64_t i = 0; i < 2 * pairs; i++) to[i] = auxiliary[i];
    api::hide_rseq(reinterpret_cast<Elf64_auxv_t*>(to));
    // Moves the rest from the far end: the destination is higher and overlaps the source.
    const auto move = [&](const void* from, std::uint64_t n) {
        const auto* words_from = static_cast<const std::uint64_t*>(from);
        while (n) *--to = words_from[--n];
    };
    *--to = 0;
    move(own.environment, variables);
    *--to = 0;
    move(own.arguments + start.own_arguments, arguments);
    *--to = arguments;
    return start_vectors(base);
}

bool tell_linux(const start_vectors& started, const image& main, int file, const char* name) {
    raw_syscall(__NR_prctl, PR_SET_NAME, as_long(base::basename(name)));
    const std::uint64_t stack = address(started.base);
    const std::uint64_t heap = heap_of(main);
    __u64 arguments_begin, arguments_end, environment_begin, environment_end;
    bounds(started.arguments, started.argument_count, stack, arguments_begin, arguments_end);
    bounds(started.environment, count(started.environment), arguments_end, environment_begin,
           environment_end);
    std::uint64_t pairs = 0;
    while (started.auxiliary[pairs++].a_type != AT_NULL) {
    }
    prctl_mm_map map{.start_code = main.code_begin,
                     .end_code = main.code_end,
                     .start_data = main.data_begin,
                     .end_data = main.data_end,
                     .start_brk = heap,
                     .brk = heap,
                     .start_stack = stack,
                     .arg_start = arguments_begin,
                     .arg_end = arguments_end,
                     .env_start = environment_begin,
                     .env_end = environment_end,
                     .auxv = reinterpret_cast<__u64*>(started.auxiliary),
                     .auxv_size = static_cast<__u32>(pairs * sizeof(Elf64_auxv_t)),
                     .exe_fd = static_cast<__u32>(-1)};
    const auto tell = [&] {
        return raw_syscall(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, as_long(&map), sizeof map, 0) == 0;
    };
    constexpr unsigned administer = 21, checkpoint_restore = 40;
    if ((has_capability(administer) || has_capability(checkpoint_restore)) && detach_from_file()) {
        map.exe_fd = static_cast<__u32>(file);
        if (tell()) return true;
        map.exe_fd = static_cast<__u32>(-1);
    }
    tell();
    return false;
}

void make_stack_executable(std::uint64_t stack) {
    const auto page = static_cast<long>(stack & ~(page_size - 1));
    raw_syscall(__NR_mprotect, page, page_size,
                PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN);
}

}  // namespace xos::loader
