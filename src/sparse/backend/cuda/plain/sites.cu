// Sites on the GPU: a hash table from packed sites to rows, the table of neighbours of a kernel map, and new output sites.
//
// A packed site is its row-major index over (batch, z, y, x). Threads fill the hash table in any order, but only the row of a key is ever
// read, and that row is the same on every run.

struct Shape {
    long long depth, height, width;
};

struct Three {
    int z, y, x;
};

__device__ inline unsigned long long packed(int4 site, Shape shape) {
    return ((site.x * shape.depth + site.y) * shape.height + site.z) * shape.width + site.w;
}

__device__ inline unsigned first_slot(unsigned long long key, unsigned mask) {
    return static_cast<unsigned>((key * 0x9E3779B97F4A7C15ull) >> 32) & mask;
}

// Keys are stored as key + 1, so that 0 is an empty slot. The number of slots is a power of two, at least twice the number of sites.
extern "C" __global__ void insert_sites(const int4* sites, int count, Shape shape, unsigned long long* keys, int* rows, unsigned mask) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= count) return;
    unsigned long long key = packed(sites[row], shape) + 1;
    unsigned slot = first_slot(key, mask);
    while (atomicCAS(keys + slot, 0ull, key) != 0ull) slot = (slot + 1) & mask;
    rows[slot] = row;
}

// The cell that `cell` reads through tap `r` of an axis or, with `divide`, the cell that reads `cell`; -1 if there is none in `size` cells.
__device__ inline int through(int cell, int r, int stride, int padding, int dilation, bool divide, long long size) {
    long long at;
    if (divide) {
        long long scaled = static_cast<long long>(cell) + padding - static_cast<long long>(r) * dilation;
        if (scaled < 0 || scaled % stride != 0) return -1;
        at = scaled / stride;
    } else {
        at = static_cast<long long>(cell) * stride - padding + static_cast<long long>(r) * dilation;
    }
    return at >= 0 && at < size ? static_cast<int>(at) : -1;
}

// Writes `table[offset][target]`: the source row that a target reads through an offset, or -1. Grid (targets / 256, offsets).
extern "C" __global__ void find_neighbours(const int4* targets, int count, Shape source, const unsigned long long* keys, const int* rows,
                                           unsigned mask, Three kernel, Three stride, Three padding, Three dilation, int divide,
                                           int* table) {
    int target = blockIdx.x * blockDim.x + threadIdx.x;
    if (target >= count) return;
    int offset = blockIdx.y;
    int rx = offset % kernel.x, ry = offset / kernel.x % kernel.y, rz = offset / (kernel.x * kernel.y);
    int4 site = targets[target];
    int z = through(site.y, rz, stride.z, padding.z, dilation.z, divide, source.depth);
    int y = through(site.z, ry, stride.y, padding.y, dilation.y, divide, source.height);
    int x = through(site.w, rx, stride.x, padding.x, dilation.x, divide, source.width);
    int found = -1;
    if (z >= 0 && y >= 0 && x >= 0) {
        unsigned long long key = packed(make_int4(site.x, z, y, x), source) + 1;
        for (unsigned slot = first_slot(key, mask);; slot = (slot + 1) & mask) {
            unsigned long long there = keys[slot];
            if (there == key) found = rows[slot];
            if (there == key || there == 0) break;
        }
    }
    table[static_cast<long long>(offset) * count + target] = found;
}

// Sets the bits of the output cells that each site reaches. `kernel`, `stride`, `padding` and `dilation` describe the way from outputs to
// inputs, which `divide` reverses. With `floor`, a site reaches only the cell floor(site / stride). Grid (sites / 256, offsets).
extern "C" __global__ void mark_outputs(const int4* sites, int count, Shape target, Three kernel, Three stride, Three padding,
                                        Three dilation, int divide, int floor, unsigned* bits) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= count) return;
    int4 site = sites[row];
    int z, y, x;
    if (floor) {
        z = site.y / stride.z, y = site.z / stride.y, x = site.w / stride.x;
        if (z >= target.depth || y >= target.height || x >= target.width) return;
    } else {
        int offset = blockIdx.y;
        int rx = offset % kernel.x, ry = offset / kernel.x % kernel.y, rz = offset / (kernel.x * kernel.y);
        z = through(site.y, rz, stride.z, padding.z, dilation.z, divide, target.depth);
        y = through(site.z, ry, stride.y, padding.y, dilation.y, divide, target.height);
        x = through(site.w, rx, stride.x, padding.x, dilation.x, divide, target.width);
        if (z < 0 || y < 0 || x < 0) return;
    }
    unsigned long long key = packed(make_int4(site.x, z, y, x), target);
    atomicOr(bits + (key >> 5), 1u << (key & 31));
}

// A prefix sum over a block of 1024 threads. Returns the sum of the values before this thread's; `total` becomes the sum of all.
__device__ inline unsigned before(unsigned value, unsigned& total) {
    __shared__ unsigned sums[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    unsigned sum = value;
    for (int step = 1; step < 32; step *= 2) {
        unsigned left = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += left;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        unsigned of = sums[lane];
        for (int step = 1; step < 32; step *= 2) {
            unsigned left = __shfl_up_sync(~0u, of, step);
            if (lane >= step) of += left;
        }
        sums[lane] = of;
    }
    __syncthreads();
    unsigned result = sum - value + (warp > 0 ? sums[warp - 1] : 0);
    total = sums[31];
    __syncthreads();
    return result;
}

// Counts the bits that are set in each 1024 words. Grid (words / 1024), block 1024.
extern "C" __global__ void count_bits(const unsigned* bits, long long words, unsigned* counts) {
    long long word = blockIdx.x * 1024ll + threadIdx.x;
    unsigned total;
    before(word < words ? __popc(bits[word]) : 0, total);
    if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Replaces each count by the sum of those before it, and writes the sum of all to the end. One block of 1024.
extern "C" __global__ void scan_counts(unsigned* counts, int blocks) {
    unsigned done = 0;
    for (int first = 0; first < blocks; first += 1024) {
        int at = first + threadIdx.x;
        unsigned total;
        unsigned left = before(at < blocks ? counts[at] : 0, total);
        if (at < blocks) counts[at] = done + left;
        done += total;
    }
    if (threadIdx.x == 0) counts[blocks] = done;
}

// Lists the sites whose bits are set, ascending. Grid and block as for `count_bits`.
extern "C" __global__ void list_bits(const unsigned* bits, long long words, const unsigned* counts, Shape shape, int4* sites) {
    long long word = blockIdx.x * 1024ll + threadIdx.x;
    unsigned here = word < words ? bits[word] : 0, total;
    unsigned row = counts[blockIdx.x] + before(__popc(here), total);
    for (; here; here &= here - 1, ++row) {
        long long key = word * 32 + __ffs(here) - 1;
        long long line = key / shape.width, plane = line / shape.height;
        sites[row] = make_int4(static_cast<int>(plane / shape.depth), static_cast<int>(plane % shape.depth),
                               static_cast<int>(line % shape.height), static_cast<int>(key % shape.width));
    }
}
