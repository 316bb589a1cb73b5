#include <linux/futex.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/cell/kernel_abi.hpp"
#include "libxos/forward/arguments.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::forward {

using cell::context;
using cell::io_vector;
using cell::message_header;
using cell::the_cell;
using syscall::argument;
using syscall::call_facts;
using syscall::copy_in;
using syscall::looked_at;
using syscall::lookup;

namespace {

/// An address where nothing is ever mapped.
constexpr std::uint64_t nowhere = 256;

/// Whether an argument is a descriptor of libxos's, which the application does not know of.
bool names_own_descriptor(const call_facts& call, const std::uint64_t* arguments, unsigned i) {
    if (!the_cell.descriptors.owns(static_cast<std::uint32_t>(arguments[i]))) return false;
    // Linux ignores the directory descriptor of an absolute path.
    char first = 0;
    return call.arguments[i] != argument::dirfd || !copy_in(&first, arguments[i + 1], 1) ||
           first != '/';
}

bool is_guarded(std::uint64_t address) {
    return the_cell.guard.covers(address);
}

/// struct mmsghdr.
struct counted_message {
    message_header header;
    std::uint64_t length;
};

/// The memory that one call names.
class named_memory {
  public:
    named_memory(unsigned number, std::uint64_t* arguments)
        : call_(lookup(number)), arguments_(arguments) {
        for (unsigned i = 0; i < call_.argument_count; i++) look_at(i);
        const bool writes = number == __NR_process_vm_writev;
        if ((writes || number == __NR_process_vm_readv) &&
            static_cast<long>(arguments[0]) == base::raw_syscall(__NR_getpid))
            look_at_buffers(arguments[3], arguments[4], writes);
    }
    ~named_memory() {
        for (unsigned i = 0; i < count_; i++) the_cell.hooks.reveal(concealed_[i]);
    }
    named_memory(const named_memory&) = delete;
    named_memory& operator=(const named_memory&) = delete;

  private:
    /// The most arrays and buffers in one call: Linux gets no further than the first bad page of
    /// each.
    static constexpr unsigned most = 8;
    static constexpr std::uint64_t most_elements = 1024;  // UIO_MAXIOV

    void look_at(unsigned i) {
        using enum argument;
        std::uint64_t& at = arguments_[i];
        switch (call_.arguments[i]) {
            case path:
            case string:
            case in_struct:
            case argv:
                return check(at, 1, false);
            case futex:
                // For a futex between processes Linux reads the page.
                return check(at, 1, !(arguments_[i + 1] & FUTEX_PRIVATE_FLAG));
            case out_struct:
            case inout_struct:
                return check(at, 1, true);
            case in_bytes:
                return check(at, size_of(i), false);
            case out_bytes:
                return check(at, size_of(i), true);
            case address:
                if (i + 1 < call_.argument_count && call_.arguments[i + 1] == size)
                    conceal_within(at, arguments_[i + 1], false);
                return;
            case in_iovec:
            case out_iovec:
                check(at, 1, false);
                return look_at_buffers(at, arguments_[i + 1], call_.arguments[i] == out_iovec);
            case in_msghdr:
            case out_msghdr:
                check(at, 1, false);
                return look_at_message(at, call_.arguments[i] == out_msghdr);
            case mmsghdr_in:
            case mmsghdr_out:
                check(at, 1, true);
                return look_at_messages(at, arguments_[i + 1], call_.arguments[i] == mmsghdr_out);
            default:
                return;
        }
    }

    /// The `size` argument of a buffer: the one after it, else the one before it.
    std::uint64_t size_of(unsigned i) const {
        if (i + 1 < call_.argument_count && call_.arguments[i + 1] == argument::size)
            return arguments_[i + 1];
        if (i > 0 && call_.arguments[i - 1] == argument::size) return arguments_[i - 1];
        return 1;
    }

    void check(std::uint64_t& at, std::uint64_t length, bool write) {
        if (!is_guarded(at)) return;
        const std::uint64_t bad = the_cell.hooks.first_forbidden(at, length ? length : 1, write);
        if (!bad) return;
        if (at - bad < page_size || length == 0)
            at = nowhere;
        else
            conceal(bad);
    }
    void conceal_within(std::uint64_t begin, std::uint64_t length, bool write) {
        if (!is_guarded(begin) || length == 0) return;
        if (const std::uint64_t bad = the_cell.hooks.first_forbidden(begin, length, write))
            conceal(bad);
    }
    void conceal(std::uint64_t page) {
        if (count_ == most) return;
        concealed_[count_] = the_cell.hooks.conceal(page);
        if (concealed_[count_].page) count_++;
    }

    void look_at_buffers(std::uint64_t array, std::uint64_t count, bool written) {
        io_vector some[16];
        constexpr unsigned at_once = sizeof some / sizeof *some;
        if (count > most_elements) return;
        for (std::uint64_t i = 0; i < count; i += at_once) {
            const std::uint64_t n = count - i < at_once ? count - i : at_once;
            if (!copy_in(some, array + i * sizeof *some, n * sizeof *some)) return;
            for (std::uint64_t k = 0; k < n; k++)
                conceal_within(some[k].base, some[k].length, written);
        }
    }
    void look_at_message(std::uint64_t at, bool written) {
        message_header m;
        if (!copy_in(&m, at, sizeof m)) return;
        conceal_within(m.name, m.name ? m.name_length : 0, written);
        conceal_within(m.control, m.control_length, written);
        look_at_buffers(m.buffers, m.count, written);
    }
    void look_at_messages(std::uint64_t at, std::uint64_t count, bool written) {
        for (std::uint64_t i = 0; i < count && i < most_elements; i++)
            look_at_message(at + i * sizeof(counted_message), written);
    }

    const call_facts& call_;
    std::uint64_t* arguments_;
    cell::concealed_page concealed_[most];
    unsigned count_ = 0;
};

/// Whether the program opens a file that shows its memory as Linux sees it.
bool is_memory_of_process(std::uint64_t path) {
    // Linux has just read the path.
    const char* text = reinterpret_cast<const char*>(path);
    const std::size_t n = base::length(text);
    constexpr char name[] = "/mem";
    constexpr std::size_t length = sizeof name - 1;
    return n > length && base::same(text + n - length, name) && !base::same(text, "/dev/mem");
}

/// A call that libxos does not know may leave Linux using this memory.
void entrust_arguments(const std::uint64_t* arguments) {
    for (unsigned i = 0; i < 6; i++) {
        if (is_guarded(arguments[i])) the_cell.hooks.entrust(arguments[i]);
    }
}

[[gnu::noinline]] long look_and_forward(context& c, const std::uint64_t* call, looked_at what) {
    const auto number = static_cast<unsigned>(call[0]);
    if (what.unknown) {
        if (the_cell.guard.length) entrust_arguments(call + 1);
        return xos_forward(&c, call);
    }
    const call_facts& known = lookup(number);
    for (unsigned i = 0; i < known.argument_count; i++) {
        if (what.descriptors >> i & 1 && names_own_descriptor(known, call + 1, i))
            return -base::error::badf;
    }
    // Without an arena Linux knows everything about memory.
    if (!what.memory || the_cell.guard.length == 0) return xos_forward(&c, call);
    std::uint64_t changed[7];
    base::copy_bytes(changed, call, sizeof changed);
    long result;
    {
        named_memory looking(number, changed + 1);
        result = xos_forward(&c, changed);
    }
    if (result >= 0 && what.opens && is_memory_of_process(call[what.opens]))
        the_cell.hooks.retire_memory();
    return result;
}

}  // namespace

long call_by_exit(context& c, const std::uint64_t* call) {
    const auto number = static_cast<std::uint32_t>(call[0]);  // as Linux interprets it
    const looked_at what =
        number < syscall::table_size ? syscall::arguments_to_look_at[number] : looked_at{};
    return what.any() ? look_and_forward(c, call, what) : xos_forward(&c, call);
}

}  // namespace xos::forward
