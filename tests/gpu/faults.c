/* Stands before NVIDIA's driver (LD_PRELOAD) and fails as a driver fails.

   WAVEMESH_TEST_FAULT names a file that says what is wrong, from then on: "old", a driver of CUDA 12.4; "lost", a GPU that is gone.
   WAVEMESH_TEST_DRIVER names what stands for /proc/driver/nvidia/version. */
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

/* The driver is loaded by whoever calls; its names are not among those that follow this library's. */
static void *driver(const char *name) { return dlsym(dlopen("libcuda.so.1", RTLD_LAZY), name); }

typedef long word;

/* A call of up to eleven arguments, which the driver takes as they are. */
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
