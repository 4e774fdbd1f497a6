/* The codecs of sandbox.h, compiled once for all the files of sandboxd. */
#define SANDBOX_IMPLEMENTATION
#include "sandboxd.h"
