#pragma once

// With `ROSTER_SEPARATE_COMPILATION`, what does not depend on a program's own types is compiled in the one file that includes
// `roster/src.hpp`; elsewhere headers only declare it. Without, everything is in the headers.

#if !defined(ROSTER_SEPARATE_COMPILATION) || defined(ROSTER_SOURCE)
#define ROSTER_DEFINITIONS_HERE 1
#else
#define ROSTER_DEFINITIONS_HERE 0
#endif

#if defined(ROSTER_SEPARATE_COMPILATION)
#define ROSTER_DECL
#else
#define ROSTER_DECL inline
#endif
