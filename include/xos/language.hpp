// What the headers need of the compiler. Each includes this first, and declares nothing when it is
// not there, so that this is all that the compiler has to say of them.
#pragma once

#if __cplusplus < 202002L
#error "libxos needs C++20 (-std=c++20)"
#endif
