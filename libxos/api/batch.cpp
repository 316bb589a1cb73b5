#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <variant>
#include <xos/batch.hpp>
#include <xos/cell.hpp>

#include "kmod/xos_uapi.h"
#include "libxos/api/call_blocks.hpp"
#include "libxos/api/errors.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/forward/transports.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/table.hpp"

namespace xos {

namespace {

using base::raw_syscall;
using detail::calls_a_block;
using detail::queued_call;

static_assert(sizeof(queued_call) == sizeof(xos_call) &&
              offsetof(queued_call, arguments) == offsetof(xos_call, arguments) &&
              offsetof(queued_call, result) == offsetof(xos_call, result));
static_assert(calls_a_block == XOS_VECTOR_MAX);

// ---- ways to make calls: each makes some, at least one of them, and says how many

using way = std::size_t (*)(std::span<queued_call> calls, after_error then);

std::size_t one_by_one(std::span<queued_call> calls, after_error then) {
    std::size_t made = 0;
    for (auto& c : calls) {
        const auto a = [&](unsigned i) { return static_cast<long>(c.arguments[i]); };
        c.result = raw_syscall(static_cast<long>(c.number), a(0), a(1), a(2), a(3), a(4), a(5));
        made++;
        if (c.result < 0 && then == after_error::stop) break;
    }
    return made;
}

/// Short of all when a signal was to be handled, or the kernel module leaves a call over.
std::size_t by_vector(std::span<queued_call> calls, after_error then) {
    const long flags = then == after_error::stop ? XOS_VECTOR_STOP_AT_ERROR : 0;
    for (;;) {
        const long made = raw_syscall(XOS_NR_VECTOR, base::as_long(calls.data()),
                                      static_cast<long>(calls.size()), flags);
        if (made > 0) return static_cast<std::size_t>(made);
        // Something that sees the guest's calls (a local answer, a seccomp filter) refuses it.
        if (made < 0) return one_by_one(calls, then);
    }
}

way best_way() {
    return inside() ? by_vector : one_by_one;
}

// ---- what a call is known to be

/// What a call that moves all its bytes returns, or 0 if any result is good.
std::int64_t full_transfer(const queued_call& c) {
    switch (c.number) {
        case SYS_read:
        case SYS_write:
        case SYS_pread64:
        case SYS_pwrite64:
        case SYS_sendto:
            return static_cast<std::int64_t>(c.arguments[2]);
        case SYS_recvfrom:
            return c.arguments[3] & MSG_WAITALL ? static_cast<std::int64_t>(c.arguments[2]) : 0;
        case SYS_readv:
        case SYS_writev: {
            std::int64_t sum = 0;
            const auto* part = reinterpret_cast<const iovec*>(c.arguments[1]);
            for (std::uint64_t i = 0; i < c.arguments[2]; i++)
                sum += static_cast<std::int64_t>(part[i].iov_len);
            return sum;
        }
        default:
            return 0;
    }
}

bool returns_once(long number) {
    switch (number) {
        case SYS_fork:
        case SYS_vfork:
        case SYS_clone:
        case SYS_clone3:
        case SYS_execve:
        case SYS_execveat:
        case SYS_exit:
        case SYS_exit_group:
        case SYS_rt_sigreturn:
            return false;
        default:
            return true;
    }
}

bool is_for_vectors(std::uint32_t number) {
    return forward::may_be_in_vector(number) &&
           (number >= syscall::table_size ||
            !__atomic_load_n(&xos_local_calls[number], __ATOMIC_ACQUIRE));
}

/// Copies of names and the like, which do not move.
class copies {
  public:
    void* allocate(std::size_t bytes) {
        bytes = (bytes + alignment - 1) & ~(alignment - 1);
        if (bytes > chunk_bytes / 2)
            return large_.emplace_back(std::make_unique_for_overwrite<char[]>(bytes)).get();
        if (used_ + bytes > chunk_bytes) {
            if (chunk_ + 1 >= chunks_.size())
                chunks_.push_back(std::make_unique_for_overwrite<char[]>(chunk_bytes));
            chunk_ = chunks_.size() == 1 ? 0 : chunk_ + 1;
            used_ = 0;
        }
        void* const at = chunks_[chunk_].get() + used_;
        used_ += bytes;
        return at;
    }
    void clear() noexcept {
        large_.clear();
        chunk_ = 0;
        used_ = chunks_.empty() ? chunk_bytes : 0;
    }

  private:
    static constexpr std::size_t chunk_bytes = 4096, alignment = 8;
    std::vector<std::unique_ptr<char[]>> chunks_, large_;
    std::size_t chunk_ = 0, used_ = chunk_bytes;
};

}  // namespace

/// What most calls do not need.
struct batch::state {
    /// A call that is not simply made after the one before it.
    struct mark {
        std::uint32_t index;
        bool linked = false, alone = false;
        std::int64_t full_transfer = 0;  ///< of the call that it is linked to
    };

    std::vector<queued_call*> blocks;
    std::vector<mark> marks;  ///< ascending; those of calls that were submitted are gone
    copies copied;
    std::deque<std::variant<std::monostate, std::vector<std::byte>, std::string, owned_bytes>>
        owned;  ///< a deque, because what a small string holds moves with it
    std::uint32_t owned_used = 0;

    mark& mark_of(std::uint32_t index) {
        if (marks.empty() || marks.back().index != index) marks.push_back({.index = index});
        return marks.back();
    }
    queued_call& at(std::uint32_t index) {
        return blocks[index / calls_a_block][index % calls_a_block];
    }
    template <class B>
    std::uint32_t own(B&& buffer) {
        if (owned_used == owned.size()) owned.emplace_back();
        owned[owned_used] = std::move(buffer);
        return owned_used++;
    }
    template <class B>
    void take(std::uint32_t slot, B& into) {
        B* const kept = std::get_if<B>(&owned[slot]);
        if (!kept) api::raise(errc::bad_argument, "take() was called a second time");
        into = std::move(*kept);
        owned[slot].emplace<std::monostate>();
    }
};

batch::batch() : state_(std::make_unique<state>()) {}

batch::~batch() {
    for (auto* const block : state_->blocks) api::free_call_block(block);
}

void batch::grow() {
    auto& blocks = state_->blocks;
    const std::size_t wanted = count_ / calls_a_block;
    if (wanted == blocks.size()) {
        blocks.reserve(wanted + 1);
        blocks.push_back(api::allocate_call_block());
        blocks_ = blocks.data();
    }
    next_ = blocks[wanted];
    end_ = next_ + calls_a_block;
}

void batch::prepare(long number) {
    if (!returns_once(static_cast<std::uint32_t>(number)))
        api::raise(errc::bad_argument, "a batch cannot make a call that begins or ends a process");
    if (is_for_vectors(static_cast<std::uint32_t>(number)))
        plain_ = number;
    else
        state_->mark_of(count_).alone = true;
}

const void* batch::copy(const void* from, std::size_t bytes) {
    return std::memcpy(state_->copied.allocate(bytes), from, bytes);
}

const char* batch::copy(std::string_view path) {
    if (path.find('\0') != path.npos)
        api::raise(errc::bad_argument, "the name of a file has no zero byte");
    auto* const at = static_cast<char*>(state_->copied.allocate(path.size() + 1));
    *std::copy(path.begin(), path.end(), at) = '\0';
    return at;
}

std::uint32_t batch::own(std::vector<std::byte>&& buffer) {
    return state_->own(std::move(buffer));
}
std::uint32_t batch::own(std::string&& buffer) {
    return state_->own(std::move(buffer));
}
std::uint32_t batch::own(owned_bytes&& buffer) {
    return state_->own(std::move(buffer));
}

std::span<std::byte> batch::owned_at(std::uint32_t slot) {
    struct bytes {
        std::span<std::byte> operator()(std::monostate) const { return {}; }
        std::span<std::byte> operator()(std::vector<std::byte>& b) const { return b; }
        std::span<std::byte> operator()(std::string& b) const {
            return std::as_writable_bytes(std::span(b));
        }
        std::span<std::byte> operator()(owned_bytes& b) const { return {b.data.get(), b.size}; }
    };
    return std::visit(bytes{}, state_->owned[slot]);
}

void batch::take(std::uint32_t slot, std::vector<std::byte>& into) {
    state_->take(slot, into);
}
void batch::take(std::uint32_t slot, std::string& into) {
    state_->take(slot, into);
}
void batch::take(std::uint32_t slot, owned_bytes& into) {
    state_->take(slot, into);
}

void batch::raise_not_submitted() {
    api::raise(errc::not_submitted, "the result of a call before submit(), or after clear()");
}

batch& batch::link() {
    if (count_ == submitted_)
        api::raise(errc::bad_argument, "link() needs a call before it in the same submit()");
    auto& m = state_->mark_of(count_);
    m.linked = true;
    m.full_transfer = full_transfer(state_->at(count_ - 1));
    return *this;
}

std::size_t batch::submit(after_error then) {
    auto& s = *state_;
    const way make = best_way();
    std::size_t all_made = 0;
    std::size_t mark = 0;  // the first that is not before `submitted_`
    const auto go_on = [&](std::size_t calls) {
        submitted_ += static_cast<std::uint32_t>(calls);
        while (mark < s.marks.size() && s.marks[mark].index < submitted_) mark++;
    };
    const auto cancel = [&] {
        s.at(submitted_).result = -ECANCELED;
        go_on(1);
    };
    const auto is_linked = [&] {
        return mark < s.marks.size() && s.marks[mark].index == submitted_ && s.marks[mark].linked;
    };
    while (submitted_ < count_) {
        // As many as one vector can have: of a block, and up to a call that must be looked at
        // before the next one.
        const auto block_end =
            static_cast<std::uint32_t>((submitted_ / calls_a_block + 1) * calls_a_block);
        std::uint32_t end = std::min(count_, block_end);
        after_error after = then;
        way how = make;
        for (std::size_t i = mark; i < s.marks.size() && s.marks[i].index < end; i++) {
            const auto& m = s.marks[i];
            if (m.index == submitted_) {
                if (m.alone) {
                    how = one_by_one;
                    end = submitted_ + 1;
                }
            } else if (m.alone || m.full_transfer) {
                end = m.index;
            } else if (m.linked) {
                after = after_error::stop;
            }
        }
        const std::size_t made = how({&s.at(submitted_), end - submitted_}, after);
        all_made += made;
        go_on(made);
        const std::int64_t last = s.at(submitted_ - 1).result;
        if (submitted_ < count_ && is_linked() &&
            (last < 0 || last < s.marks[mark].full_transfer)) {
            do cancel();
            while (submitted_ < count_ && is_linked());
        }
        if (last < 0 && then == after_error::stop)
            while (submitted_ < count_) cancel();
    }
    s.marks.clear();
    return all_made;
}

void batch::clear() noexcept {
    auto& s = *state_;
    s.marks.clear();
    s.copied.clear();
    for (; s.owned_used; s.owned_used--) s.owned[s.owned_used - 1].emplace<std::monostate>();
    // The cell was started after the batch was made.
    if (!s.blocks.empty() && !api::is_in_place(s.blocks[0]) && api::has_block_in_place()) {
        for (auto* const block : s.blocks) api::free_call_block(block);
        s.blocks.clear();
    }
    count_ = submitted_ = 0;
    plain_ = -1;
    generation_++;
    next_ = s.blocks.empty() ? nullptr : s.blocks[0];
    end_ = s.blocks.empty() ? nullptr : next_ + calls_a_block;
}

}  // namespace xos
