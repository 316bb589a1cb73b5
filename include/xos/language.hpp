// What the headers need of the compiler. Each header includes this first, and declares nothing for
// an older C++, so that the message below is all that the compiler says.
#pragma once

#if __cplusplus < 202002L
#error "libxos needs C++20 (-std=c++20)"
#endif
