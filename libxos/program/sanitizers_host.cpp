#include <elf.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/program/sanitizers.hpp"

namespace xos::program {

using base::as_long;
using base::raw_syscall;

namespace {

constexpr unsigned most_headers = 32;

bool read_at(int fd, void* to, std::uint64_t bytes, std::uint64_t at) {
    return raw_syscall(__NR_pread64, fd, as_long(to), static_cast<long>(bytes),
                       static_cast<long>(at)) == static_cast<long>(bytes);
}

/// The program headers of a file, if they are few.
struct program_headers {
    Elf64_Phdr all[most_headers];
    unsigned count = 0;

    explicit program_headers(int fd) {
        Elf64_Ehdr header;
        if (!read_at(fd, &header, sizeof header, 0) || header.e_phnum > most_headers) return;
        if (read_at(fd, all, header.e_phnum * sizeof *all, header.e_phoff)) count = header.e_phnum;
    }
    const Elf64_Phdr* find(std::uint32_t type) const {
        for (unsigned i = 0; i < count; i++) {
            if (all[i].p_type == type) return &all[i];
        }
        return nullptr;
    }
    /// Returns the file offset of the byte at an address; 0: not in the file.
    std::uint64_t offset_of(std::uint64_t address) const {
        for (unsigned i = 0; i < count; i++) {
            const Elf64_Phdr& p = all[i];
            if (p.p_type == PT_LOAD && address - p.p_vaddr < p.p_filesz)
                return p.p_offset + (address - p.p_vaddr);
        }
        return 0;
    }
};

/// The dynamic section, read in pieces.
class dynamic_entries {
  public:
    dynamic_entries(int fd, const Elf64_Phdr& section)
        : fd_(fd), at_(section.p_offset), left_(section.p_filesz / sizeof(Elf64_Dyn)) {}

    /// Null after the last one.
    const Elf64_Dyn* next() {
        if (i_ == have_) {
            have_ = left_ < size ? static_cast<unsigned>(left_) : size;
            i_ = 0;
            if (!have_ || !read_at(fd_, piece_, have_ * sizeof *piece_, at_)) return nullptr;
            at_ += have_ * sizeof *piece_;
            left_ -= have_;
        }
        const Elf64_Dyn& entry = piece_[i_++];
        return entry.d_tag == DT_NULL ? nullptr : &entry;
    }

  private:
    static constexpr unsigned size = 48;

    int fd_;
    std::uint64_t at_, left_;
    unsigned i_ = 0, have_ = 0;
    Elf64_Dyn piece_[size];
};

bool is_address_sanitizer(const char* library) {
    return base::after(library, "libasan.so") || base::after(library, "libclang_rt.asan");
}

}  // namespace

bool needs_first_library(int fd) {
    const program_headers headers(fd);
    const Elf64_Phdr* const dynamic = headers.find(PT_DYNAMIC);
    if (!dynamic) return false;
    std::uint64_t strings = 0;
    dynamic_entries entries(fd, *dynamic);
    while (const Elf64_Dyn* entry = entries.next()) {
        if (entry->d_tag == DT_STRTAB) strings = headers.offset_of(entry->d_un.d_ptr);
    }
    if (!strings) return false;
    dynamic_entries again(fd, *dynamic);
    while (const Elf64_Dyn* entry = again.next()) {
        char name[20] = {};
        if (entry->d_tag == DT_NEEDED &&
            read_at(fd, name, sizeof name - 1, strings + entry->d_un.d_val) &&
            is_address_sanitizer(name))
            return true;
    }
    return false;
}

}  // namespace xos::program
