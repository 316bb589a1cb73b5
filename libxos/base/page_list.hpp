// Free pages, linked through their first words.
#pragma once

#include <cstdint>
#include <xos/types.hpp>

namespace xos::base {

/// A stack of free pages, none of them gpa{0}. Each call is told how to reach a page:
/// `word_of(page)` returns its first word, a std::uint64_t*. Takes no lock.
///
/// A page's first word is zero again when it leaves the list, so the list may hold zeroed pages. In
/// the list, the word is a multiple of the page size: an entry that is not present.
class page_list {
  public:
    bool is_empty() const { return top_ == gpa{}; }

    template <class WordOf>
    void push(gpa page, WordOf&& word_of) {
        __atomic_store_n(word_of(page), top_.value, __ATOMIC_RELAXED);
        top_ = page;
    }
    /// The list must not be empty.
    template <class WordOf>
    gpa pop(WordOf&& word_of) {
        const gpa page = top_;
        std::uint64_t* const word = word_of(page);
        top_ = gpa{__atomic_load_n(word, __ATOMIC_RELAXED)};
        __atomic_store_n(word, 0, __ATOMIC_RELAXED);
        return page;
    }

  private:
    gpa top_;
};

}  // namespace xos::base
