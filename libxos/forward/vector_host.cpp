// Several calls by one exit.
#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/forward/arguments.hpp"
#include "libxos/forward/transports.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/syscall/trace.hpp"

namespace xos::forward {

using cell::context;
using cell::position;
using cell::the_cell;
using syscall::table_size;

namespace {

/// The application's array. Where it lies in libxos's own memory for the application, which is
/// always there, it is used in place; else the calls are copied in and the results are copied out.
class call_array {
  public:
    call_array(std::uint64_t at, std::uint64_t count) : at_(at), bytes_(count * sizeof(xos_call)) {
        const auto& arena = the_cell.arena;
        if (at % alignof(xos_call) == 0 && at >= arena.user_begin().value &&
            at < arena.end().value && bytes_ <= arena.end().value - at) {
            calls_ = reinterpret_cast<xos_call*>(at);
        } else if (syscall::copy_in(copies_, at, bytes_)) {
            calls_ = copies_;
        }
    }
    bool is_readable() const { return calls_ != nullptr; }
    xos_call& operator[](std::uint64_t i) { return calls_[i]; }
    /// False: the results of these calls are lost.
    bool store_results(std::uint64_t made) const {
        return calls_ != copies_ || made == 0 ||
               syscall::copy_out(at_, copies_, made * sizeof *copies_);
    }

  private:
    std::uint64_t at_, bytes_;
    xos_call* calls_ = nullptr;
    xos_call copies_[XOS_VECTOR_MAX];
};
static_assert(sizeof(xos_call) * XOS_VECTOR_MAX <= 16384, "a quarter of the loop stack");

/// Of calls that libxos carries out itself.
bool own_call_returns(std::uint64_t number) {
    switch (number) {
        case __NR_close:
        case __NR_close_range:
        case __NR_dup2:
        case __NR_dup3:
        case __NR_getdents:
        case __NR_getdents64:
        case __NR_ioctl:
        case __NR_readlink:
        case __NR_readlinkat:
        case __NR_setsockopt:
            return true;
        default:
            return number < table_size && syscall::belongs_to(syscall::served::identity,
                                                              static_cast<unsigned>(number));
    }
}

/// Makes one call (its number and six arguments) and returns its result; c.stop.where tells if it
/// was taken back.
long make(context& c, const std::uint64_t* call) {
    const std::uint64_t number = call[0];
    const std::uint64_t counted = number < table_size ? number : table_size - 1;
    if (const auto emulate = syscall::emulation_of(number)) [[unlikely]] {
        if (!own_call_returns(number)) return -base::error::nosys;
        c.statistics.emulated[counted]++;
        return emulate(c, call + 1);
    }
    if (number == XOS_NR_VECTOR) [[unlikely]]
        return -base::error::nosys;
    const long result = call_by_exit(c, call);
    if (result == cell::taken_back)
        c.stop.where = position::taken_back;
    else
        c.statistics.forwarded[counted]++;
    return result;
}

}  // namespace

bool may_be_in_vector(std::uint64_t number) {
    return number != XOS_NR_VECTOR && (!syscall::emulation_of(number) || own_call_returns(number));
}

long calls_by_exit(context& c, const std::uint64_t* a) {
    const std::uint64_t count = a[1], flags = a[2];
    if (count > XOS_VECTOR_MAX || flags & ~std::uint64_t{XOS_VECTOR_STOP_AT_ERROR})
        return -base::error::inval;
    if (count == 0) return 0;
    call_array calls(a[0], count);
    if (!calls.is_readable()) return -base::error::fault;
    c.statistics.vector_exits++;
    const bool stops = flags & XOS_VECTOR_STOP_AT_ERROR;
    const bool logged = syscall::tracing();
    std::uint64_t made = 0;
    while (made < count) {
        xos_call& next = calls[made];
        // Read once, because another thread may write to the array meanwhile. Linux looks at 32
        // bits of it.
        const auto number =
            static_cast<std::uint32_t>(__atomic_load_n(&next.number, __ATOMIC_RELAXED));
        long result;
        if (number < table_size && syscall::made_as_it_is[number] && !logged) [[likely]] {
            result = xos_forward_as(&c, reinterpret_cast<const std::uint64_t*>(&next), number);
            if (result == cell::taken_back) [[unlikely]] {
                // The application rings again for the rest, once the signal has been handled.
                if (made == 0) c.stop.where = position::taken_back;
                break;
            }
            c.statistics.forwarded[number]++;
        } else {
            // What xos_forward_as looks at; libxos's own calls do not.
            if (made != 0 && c.signals.pending) break;
            std::uint64_t call[7] = {number};
            base::copy_words(call + 1, next.arguments, sizeof next.arguments);
            result = logged ? syscall::trace_one_of_vector(c, call, make) : make(c, call);
            if (c.stop.where == position::taken_back) {
                if (made != 0) c.stop.where = position::system_call;
                break;
            }
        }
        next.result = result;
        made++;
        if (result < 0 && stops) break;
    }
    c.statistics.vector_calls += made;
    if (!calls.store_results(made)) return -base::error::fault;
    return static_cast<long>(made);
}

}  // namespace xos::forward
