#include <linux/fcntl.h>
#include <linux/mman.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/exec_vectors.hpp"

namespace xos::syscall {

using base::after;
using base::is_error;
using base::raw_syscall;
using cell::context;
using cell::the_cell;
using program::program_file;

namespace {

constexpr std::size_t most_words = std::size_t{1} << 20;  // eight times what Linux allows
constexpr std::size_t string_room = (std::size_t{128} << 10) + 3 * program_file::path_size;
constexpr unsigned most_kept = program::policy::most_variables;

/// Counts the entries of a null-terminated list. False: Linux will say what is wrong with it.
bool count_words(std::uint64_t list, std::size_t& n) {
    n = 0;
    if (!list) return true;
    std::uint64_t piece[64];
    while (n < most_words) {
        const std::uint64_t at = list + n * sizeof *piece;
        const std::size_t in_page = (page_size - at % page_size) / sizeof *piece;
        // The list may end with its page, and may be misaligned.
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

/// Reads the beginnings of the application's variables, which lie close together, page by page.
class variable_heads {
  public:
    /// @param page  room for one page
    explicit variable_heads(char* page) : page_(page) {}

    /// Returns enough of a string to tell whether it concerns libxos, or null if it cannot be read.
    /// Valid until the next call.
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
    std::uint64_t address_ = 1;  ///< of the page in `page_`
    char head_[size + 1] = {};
};

/// Whether two variables, "NAME=...", have the same name.
bool same_name(const char* a, const char* b) {
    while (*a && *a == *b && *a != '=') a++, b++;
    return *a == *b && *a == '=';
}

}  // namespace

bool exec_scratch::take(context& c, std::size_t bytes) {
    if (c.exec_scratch.size < bytes) {
        const long r = raw_syscall(__NR_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (is_error(r)) return false;
        if (c.exec_scratch.size)
            raw_syscall(__NR_munmap, static_cast<long>(c.exec_scratch.begin),
                        static_cast<long>(c.exec_scratch.size));
        c.exec_scratch.begin = static_cast<std::uint64_t>(r);
        c.exec_scratch.size = bytes;
    }
    next_ = c.exec_scratch.begin;
    return true;
}

std::uint64_t exec_scratch::string(const char* text) {
    const std::uint64_t start = next_;
    const std::size_t n = base::length(text) + 1;
    base::copy_bytes(bytes(), text, n);
    use(n);
    return start;
}

exec_vectors::~exec_vectors() {
    if (inherited_ >= 0) raw_syscall(__NR_close, inherited_);
}

bool exec_vectors::make(context& c, const program::launch_plan& plan, const program_file& file,
                        const program::start_request& asked, std::uint64_t arguments,
                        std::uint64_t environment) {
    std::size_t argument_count = 0, variable_count = 0;
    const bool by_loader = *plan.executed;
    if (!count_words(environment, variable_count)) return false;
    if (by_loader && !count_words(arguments, argument_count)) return false;
    constexpr unsigned added = most_kept + 16;
    const std::size_t words = argument_count + variable_count + 2 * added + page_size / 8;
    if (!scratch_.take(c, words * sizeof(std::uint64_t) + string_room)) return false;
    environment_ = scratch_.words(variable_count + added);
    std::uint64_t* const room = scratch_.words(argument_count + added);
    if (!make_environment(environment, variable_count, plan.with_library())) return false;
    if (!by_loader) return true;
    arguments_ = room;
    return make_arguments(file, asked, arguments, argument_count);
}

bool exec_vectors::make_environment(std::uint64_t list, std::size_t count, bool with_library) {
    // The application's variables follow the room for those that libxos has kept.
    std::uint64_t* const given = environment_ + most_kept + 3;
    if (!copy_words(given, list, count)) return false;
    std::size_t others = 0;
    std::uint64_t* place = nullptr;  // of LD_PRELOAD
    std::uint64_t reserved[most_kept];
    variable_heads heads(reinterpret_cast<char*>(scratch_.words(page_size / 8)));
    for (std::size_t i = 0; i < count; i++) {
        const std::uint64_t variable = given[i];
        const char* const head = heads.read(variable);
        if (!head) return false;
        if (program::is_reserved(head)) {
            if (reserved_ == most_kept) return false;
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
    // Fills the room before the application's own variables, back to front.
    std::uint64_t* first = given;
    if (!add_preload(with_library)) return false;
    if (preload_ && !place) place = --first;
    // Empty if only libxos's own libraries were in it.
    if (place) *place = preload_ ? preload_ : scratch_.string(program::preload_variable);
    for (std::size_t i = reserved_; i-- > 0;) *--first = reserved[i];
    std::size_t hidden = reserved_ + (place && preloads_own_only_);
    if (!add_kept(first, reserved, hidden)) return false;
    if (hidden % 2) {
        if (first == environment_) return false;
        *--first = scratch_.string(program::padding_variable);
    }
    environment_ = first;
    return true;
}

/// Adds the variables that libxos has kept, except those that the application has set itself.
bool exec_vectors::add_kept(std::uint64_t*& first, const std::uint64_t* reserved,
                            std::size_t& hidden) {
    const auto& policy = the_cell.program.policy;
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
    return true;
}

/// Leaves the next program's LD_PRELOAD in preload_; zero if it needs none.
bool exec_vectors::add_preload(bool with_library) {
    const auto& policy = the_cell.program.policy;
    constexpr std::size_t name = sizeof program::preload_variable - 1;
    char* const whole = scratch_.bytes();
    // The application's value is read into the far end, then joined to libxos's at the front.
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

/// Hands over the descriptor, so that the loader executes the file that was inspected.
bool exec_vectors::inherit(const program_file& file, const program::start_request& asked) {
    if (file.scripts) {
        // The interpreter opens the script by this name. If the descriptor is closed by then, Linux
        // reports that first.
        return asked.is_by_path() ||
               !(raw_syscall(__NR_fcntl, asked.directory, F_GETFD) & FD_CLOEXEC);
    }
    constexpr long above = 64;
    inherited_ = static_cast<int>(raw_syscall(__NR_fcntl, file.fd, F_DUPFD, above));
    return inherited_ >= 0;
}

/// Writes xos-loader's own arguments, then the application's.
bool exec_vectors::make_arguments(const program_file& file, const program::start_request& asked,
                                  std::uint64_t list, std::size_t count) {
    if (!inherit(file, asked)) return false;
    program::loader_words own;
    char* const text = scratch_.bytes();
    scratch_.use(static_cast<std::size_t>(own.make(asked, inherited_, text) - text));
    std::uint64_t* to = arguments_;
    for (unsigned i = 0; i < own.count; i++) *to++ = reinterpret_cast<std::uint64_t>(own.list[i]);
    if (!copy_words(to, list, count)) return false;
    to += count;
    // Linux does so since 5.18.
    if (!count) *to++ = scratch_.string("");
    *to = 0;
    return true;
}

}  // namespace xos::syscall
