/* Stands between a program and NVIDIA's driver (LD_PRELOAD), and fails as the driver would.

   WAVEMESH_TEST_FAULT names a file whose text says what fails from then on: "old" for a driver of CUDA 12.4, "lost" for a GPU that is gone.
   WAVEMESH_TEST_DRIVER names the file to open in place of /proc/driver/nvidia/version. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NO_DEVICE = 100, UNKNOWN = 999 };

static const char *led(const char *path) {
    const char *driver = getenv("WAVEMESH_TEST_DRIVER");
    return driver && strcmp(path, "/proc/driver/nvidia/version") == 0 ? driver : path;
}

#define OPEN(name)                                                                                                                 \
    int name(const char *path, int flags, ...) {                                                                                   \
        int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                            \
        va_list arguments;                                                                                                         \
        va_start(arguments, flags);                                                                                                \
        int mode = va_arg(arguments, int);                                                                                         \
        va_end(arguments);                                                                                                         \
        return real(led(path), flags, mode);                                                                                       \
    }
OPEN(open)
OPEN(open64)

static int is(const char *fault) {
    const char *path = getenv("WAVEMESH_TEST_FAULT");
    char said[16] = "";
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    if (!fgets(said, sizeof said, file)) said[0] = 0;
    fclose(file);
    return strncmp(said, fault, strlen(fault)) == 0;
}

/* The caller loads the driver with dlopen, so RTLD_NEXT does not find the driver's names. */
static void *driver(const char *name) { return dlsym(dlopen("libcuda.so.1", RTLD_LAZY), name); }

typedef long word;

/* Wraps a call of up to eleven arguments, which are passed to the driver unchanged. */
#define CALL(name, fault, answer)                                                                                                  \
    int name(word a, word b, word c, word d, word e, word f, word g, word h, word i, word j, word k) {                             \
        if (is(fault)) return answer;                                                                                              \
        return ((int (*)(word, word, word, word, word, word, word, word, word, word, word))driver(#name))(a, b, c, d, e, f, g, h,  \
                                                                                                         i, j, k);                 \
    }
CALL(cuInit, "lost", NO_DEVICE)
CALL(cuDeviceGetCount, "lost", NO_DEVICE)
CALL(cuCtxSetCurrent, "lost", UNKNOWN)
CALL(cuMemAllocAsync, "lost", UNKNOWN)
CALL(cuMemAlloc_v2, "lost", UNKNOWN)
CALL(cuMemsetD8Async, "lost", UNKNOWN)
CALL(cuMemcpyHtoDAsync_v2, "lost", UNKNOWN)
CALL(cuMemcpyDtoHAsync_v2, "lost", UNKNOWN)
CALL(cuMemcpyDtoDAsync_v2, "lost", UNKNOWN)
CALL(cuLaunchKernel, "lost", UNKNOWN)
CALL(cuStreamSynchronize, "lost", UNKNOWN)
CALL(cuModuleLoadData, "lost", UNKNOWN)

int cuDriverGetVersion(int *version) {
    if (!is("old")) return ((int (*)(int *))driver("cuDriverGetVersion"))(version);
    *version = 12040;
    return 0;
}
