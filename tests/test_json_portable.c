/* The same without SSE2 and NEON. */
#define SBX_NO_SIMD
#include "test_json.c"
