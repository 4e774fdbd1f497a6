/* The tests of transports/sandbox_posix.h once more, as on systems where a socket cannot be born
   non-blocking and not inheritable, macOS among them. */
#define TEST_POSIX_WITHOUT_FLAGS
#include "test_posix.c"
