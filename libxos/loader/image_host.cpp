#include <elf.h>
#include <linux/mman.h>
#include <linux/personality.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/loader/image.hpp"
#include "xos/types.hpp"

namespace xos::loader {

using base::as_long;
using base::is_error;
using base::raw_syscall;

namespace {

constexpr std::uint64_t page = page_size, user_end = 0x7ffffffff000;
constexpr unsigned most_headers = 65536 / sizeof(Elf64_Phdr);

constexpr std::uint64_t page_down(std::uint64_t a) {
    return a & ~(page - 1);
}
constexpr std::uint64_t page_up(std::uint64_t a) {
    return page_down(a + page - 1);
}

/// The program headers of one file.
class headers {
  public:
    bool read(int fd) {
        if (raw_syscall(__NR_pread64, fd, as_long(&elf), sizeof elf, 0) != sizeof elf) return false;
        if (elf.e_phnum > most_headers) return false;
        const long n = static_cast<long>(elf.e_phnum * sizeof(Elf64_Phdr));
        const long at = raw_syscall(__NR_mmap, 0, n, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (is_error(at)) return false;
        all_ = reinterpret_cast<Elf64_Phdr*>(at);
        return raw_syscall(__NR_pread64, fd, at, n, static_cast<long>(elf.e_phoff)) == n;
    }
    headers() = default;
    ~headers() {
        if (all_)
            raw_syscall(__NR_munmap, as_long(all_),
                        static_cast<long>(elf.e_phnum * sizeof(Elf64_Phdr)));
    }
    headers(const headers&) = delete;
    headers& operator=(const headers&) = delete;

    const Elf64_Phdr* begin() const { return all_; }
    const Elf64_Phdr* end() const { return all_ + elf.e_phnum; }

    Elf64_Ehdr elf;

  private:
    Elf64_Phdr* all_ = nullptr;
};

int protection_of(const Elf64_Phdr& p) {
    return (p.p_flags & PF_R ? PROT_READ : 0) | (p.p_flags & PF_W ? PROT_WRITE : 0) |
           (p.p_flags & PF_X ? PROT_EXEC : 0);
}

bool is_sound(const Elf64_Phdr& p) {
    std::uint64_t end;
    return p.p_filesz <= p.p_memsz && !__builtin_add_overflow(p.p_vaddr, p.p_memsz, &end) &&
           end <= user_end && p.p_offset % page == p.p_vaddr % page;
}

/// The addresses that all segments cover, and the strictest alignment.
struct extent {
    std::uint64_t begin = ~std::uint64_t{0}, end = 0, alignment = page;
};

bool measure(const headers& all, extent& e) {
    for (const Elf64_Phdr& p : all) {
        if (p.p_type != PT_LOAD) continue;
        if (!is_sound(p)) return false;
        if (page_down(p.p_vaddr) < e.begin) e.begin = page_down(p.p_vaddr);
        if (p.p_vaddr + p.p_memsz > e.end) e.end = p.p_vaddr + p.p_memsz;
        if (p.p_align > e.alignment && !(p.p_align & (p.p_align - 1))) e.alignment = p.p_align;
    }
    return e.begin < e.end;
}

long map_at(std::uint64_t at, std::uint64_t bytes, int protection, long flags, long fd = -1,
            std::uint64_t offset = 0) {
    return raw_syscall(__NR_mmap, static_cast<long>(at), static_cast<long>(bytes), protection,
                       flags, fd, static_cast<long>(offset));
}

/// Checks that nothing is mapped there yet.
long claim(const extent& e) {
    const std::uint64_t bytes = page_up(e.end) - e.begin;
    const long at = map_at(e.begin, bytes, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE);
    if (!is_error(at)) raw_syscall(__NR_munmap, at, static_cast<long>(bytes));
    return at;
}

/// Finds addresses for `e` by mapping them for a moment: nothing else runs in this process yet.
long place(const extent& e, placement where, bool first_try) {
    // Linux's ELF_ET_DYN_BASE. The heap is there, too, until it is moved behind the program.
    constexpr std::uint64_t programs = 0x555555554000, heap = std::uint64_t{16} << 30;
    const std::uint64_t bytes = page_up(e.end - e.begin) + e.alignment;
    std::uint64_t hint = 0;
    long flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (where == placement::program && first_try) {
        hint = programs + random_pages(28) * page;
        if (hint != programs) hint += heap;
        flags |= MAP_FIXED_NOREPLACE;
    }
    const long at = map_at(hint, bytes, PROT_NONE, flags);
    if (is_error(at)) return at;
    raw_syscall(__NR_munmap, at, static_cast<long>(bytes));
    const auto low = static_cast<std::uint64_t>(at);
    return static_cast<long>((low + e.alignment - 1) & ~(e.alignment - 1));
}

/// Maps the part of a segment that the file holds, and zeros for the rest.
long map_segment(int fd, const Elf64_Phdr& p, std::uint64_t bias) {
    const std::uint64_t at = bias + p.p_vaddr, in_page = at % page;
    const int protection = protection_of(p);
    if (p.p_filesz) {
        const long r = map_at(at - in_page, page_up(p.p_filesz + in_page), protection,
                              MAP_PRIVATE | MAP_FIXED, fd, p.p_offset - in_page);
        if (is_error(r)) return r;
    }
    const std::uint64_t file_end = at + p.p_filesz, end = at + p.p_memsz;
    if (end == file_end) return 0;
    const std::uint64_t pages = p.p_filesz ? page_up(file_end) : page_down(at);
    if (p.p_filesz && (protection & PROT_WRITE) && pages > file_end)
        base::zero_bytes(reinterpret_cast<void*>(file_end), pages - file_end);
    if (page_up(end) <= pages) return 0;
    const long r =
        map_at(pages, page_up(end) - pages, PROT_READ | PROT_WRITE | (protection & PROT_EXEC),
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    return is_error(r) ? r : 0;
}

void note(image& made, const headers& all, const Elf64_Phdr& p) {
    const std::uint64_t at = made.bias + p.p_vaddr, file_end = at + p.p_filesz;
    const std::uint64_t table = all.elf.e_phoff;
    if (table >= p.p_offset && table < p.p_offset + p.p_filesz)
        made.headers = at + (table - p.p_offset);
    if ((p.p_flags & PF_X) && (!made.code_end || at < made.code_begin)) made.code_begin = at;
    if ((p.p_flags & PF_X) && file_end > made.code_end) made.code_end = file_end;
    if (at > made.data_begin) made.data_begin = at;
    if (file_end > made.data_end) made.data_end = file_end;
    if (at + p.p_memsz > made.end) made.end = at + p.p_memsz;
}

}  // namespace

std::uint64_t random_pages(unsigned bits) {
    constexpr long ask = 0xffffffff;
    if (raw_syscall(__NR_personality, ask) & ADDR_NO_RANDOMIZE) return 0;
    std::uint64_t n = 0;
    constexpr long without_waiting = 1;
    if (raw_syscall(__NR_getrandom, as_long(&n), sizeof n, without_waiting) != sizeof n)
        n = __builtin_ia32_rdtsc() * 0x9e3779b97f4a7c15;
    return n >> (64 - bits);
}

const char* map_image(image& made, int fd, placement where, long& error) {
    headers all;
    error = 0;
    if (!all.read(fd)) return "its program headers cannot be read";
    extent e;
    if (!measure(all, e)) return "its segments are not sound";
    if (all.elf.e_type == ET_DYN) {
        long at = place(e, where, true);
        if (is_error(at)) at = place(e, where, false);
        if (is_error(at)) {
            error = -at;
            return "there is no room for it in the address space";
        }
        made.bias = static_cast<std::uint64_t>(at) - e.begin;
        made.among_libraries = where == placement::library;
    } else if (const long at = claim(e); is_error(at)) {
        error = -at;
        return "the addresses that it demands are not free";
    }
    made.begin = made.bias + e.begin;
    for (const Elf64_Phdr& p : all) {
        if (p.p_type == PT_GNU_STACK) made.executable_stack = p.p_flags & PF_X;
        if (p.p_type != PT_LOAD) continue;
        if (const long r = map_segment(fd, p, made.bias); is_error(r)) {
            error = -r;
            return "its segments cannot be mapped";
        }
        note(made, all, p);
    }
    made.entry = made.bias + all.elf.e_entry;
    made.header_count = all.elf.e_phnum;
    return nullptr;
}

}  // namespace xos::loader
