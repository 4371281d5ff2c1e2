"""The fast CUDA kernels through the driver's own interface, as the library launches them: torch holds the memory, ctypes launches.

`Sites` is an index and a map of a set of sites; `conv`, `input_gradient` and `weight_gradient` run on it. Launch parameters are those of
src/sparse/backend/cuda/kernels/README.md.
"""

import ctypes
import os
import struct

import torch

FOLDER = os.environ.get("WAVEMESH_KERNELS", "kernels")  # where <name>.cubin or <name>.fatbin lie
CUDA = ctypes.CDLL("libcuda.so.1")
MOST = 576  # rows of a tile's list
# halves: f32 numbers in one scaled f16 each, for large TF32 products
KINDS = {"halves": (torch.float32, 2), "f16": (torch.float16, 2), "bf16": (torch.bfloat16, 2), "tf32": (torch.float32, 4), "f32": (torch.float32, 4), "exact": (torch.float32, 4)}


def check(code, what):
    if code:
        name = ctypes.c_char_p()
        CUDA.cuGetErrorString(code, ctypes.byref(name))
        raise RuntimeError(f"{what}: {name.value.decode() if name.value else code}")


class Kernels:
    """Functions by name, loaded once."""

    def __init__(self):
        self.modules, self.functions = {}, {}

    def get(self, module, name):
        if name not in self.functions:
            if module not in self.modules:
                path = next(p for p in (f"{FOLDER}/{module}.cubin", f"{FOLDER}/{module}.fatbin") if os.path.exists(p))
                handle = ctypes.c_void_p()
                check(CUDA.cuModuleLoad(ctypes.byref(handle), path.encode()), path)
                self.modules[module] = handle
            function = ctypes.c_void_p()
            check(CUDA.cuModuleGetFunction(ctypes.byref(function), self.modules[module], name.encode()), name)
            self.functions[name] = function
        return self.functions[name]

    def launch(self, module, name, grid, block, shared, *args):
        """Converts arguments: integers become 32-bit, tensors and None become pointers, bytes become structures."""
        function = self.get(module, name)
        if shared > 48 * 1024:
            check(CUDA.cuFuncSetAttribute(function, 8, shared), f"{name}: {shared} bytes of shared memory")
        held = []
        for a in args:
            if a is None:
                held.append(ctypes.c_void_p(0))
            elif isinstance(a, torch.Tensor):
                held.append(ctypes.c_void_p(a.data_ptr()))
            elif isinstance(a, bytes):
                held.append(ctypes.create_string_buffer(a, len(a)))
            else:
                held.append(ctypes.c_uint32(a & 0xFFFFFFFF))
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.cast(ctypes.pointer(h), ctypes.c_void_p) for h in held])
        gx, gy, gz = (*grid, 1, 1)[:3] if isinstance(grid, tuple) else (grid, 1, 1)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        check(CUDA.cuLaunchKernel(function, gx, gy, gz, block, 1, 1, shared, stream, pointers, None), name)


K = Kernels()


def up(a, b):
    return (a + b - 1) // b


def empty(*shape, dtype=torch.int32):
    return torch.empty(*shape, dtype=dtype, device="cuda")


class Sites:
    """Index and map of `coords` (n, 4) int32 on the card: batch, z, y, x."""

    def __init__(self, coords, shape, batch=1, least=None, build=True):
        self.coords, self.n = coords.contiguous(), len(coords)
        self.bits = max(2, (max(shape) - 1).bit_length())
        self.passes = max(1, up(3 * self.bits - 6 + (batch - 1).bit_length(), 8))
        self.cap = 1024
        while self.cap * 3 < self.n * 4:
            self.cap *= 2
        n, tiles = self.n, up(self.n, 256)
        self.blocks, self.tiles, self.least = up(n, 2048), tiles, least or next((p for p in (4, 2) if tiles * p <= 132), 1)
        self.table, self.state = empty(self.cap * 8), empty(64 + 8 * 256)
        self.look = empty((self.passes * 256 + 1) * self.blocks)
        self.bricks, self.places = [empty(n, dtype=torch.int64) for _ in range(2)], [empty(n) for _ in range(2)]
        self.brick_of, self.order, self.keys = empty(n), empty(n), empty(n, dtype=torch.int64)
        self.outrow, self.mask64, self.local = empty(tiles * 256), empty(tiles * 4), empty(tiles * 27 * 256, dtype=torch.int16)
        self.room = tiles * 1024
        self.lists, self.parts, self.items = empty(self.room), empty(tiles * 8), empty((tiles * 4 + 1) * 4)
        self.fill = empty(2)
        if build:
            self.index()
            self.map()

    def index(self):
        n, look = self.n, self.look
        K.launch("sites", "wm_index_clear", min(1056, up(self.cap, 256)), 256, 0, self.table, self.cap, self.state, look, look.numel())
        K.launch("sites", "wm_index_insert", up(n, 256), 256, 0, self.coords, n, self.bits, self.table, self.cap, self.bricks[0], self.places[0], self.brick_of, self.state)
        K.launch("sites", "wm_sort_histogram", min(132, self.blocks), 256, 0, self.bricks[0], self.state, self.passes)
        for p in range(self.passes):
            a, b = p % 2, 1 - p % 2
            K.launch("sites", "wm_sort_pass", self.blocks, 256, 0, self.bricks[a], self.places[a], self.bricks[b], self.places[b], self.state, p, look[p * 256 * self.blocks :])
        K.launch("sites", "wm_index_base", self.blocks, 256, 0, self.places[self.passes % 2], self.table, self.state, look[self.passes * 256 * self.blocks :])
        K.launch("sites", "wm_index_rank", up(n, 256), 256, 0, self.coords, n, self.bits, self.brick_of, self.table, self.order, self.keys)

    def map(self):
        self.fill.zero_()
        K.launch("tiles", "wm_tiles", self.tiles, 256, 0, self.keys, self.order, self.n, self.bits, self.table, self.cap, MOST, self.least,
                 self.outrow, self.mask64, self.local, self.lists, self.room, self.parts, self.fill)
        K.launch("tiles", "wm_schedule", 1, 1024, 0, self.mask64, self.parts, self.tiles, self.items)

    def parts_of_map(self):
        return self.outrow, self.mask64, self.local, self.lists, self.items


def largest(channels, sizes):
    return next(s for s in sizes if channels % s == 0)


def index_of(kernel):
    """The weight of each of the 27 offsets, the offsets as bits, and the offset of each weight."""
    kz, ky, kx = kernel
    at, back = [-1] * 28, [0] * 28
    for z in range(kz):
        for y in range(ky):
            for x in range(kx):
                o = (z + 1 - kz // 2) * 9 + (y + 1 - ky // 2) * 3 + x + 1 - kx // 2
                at[o], back[(z * ky + y) * kx + x] = (z * ky + y) * kx + x, o
    return at[:27], sum(1 << o for o in range(27) if at[o] >= 0), back[:27]


def index(numbers):
    return struct.pack("128h", *numbers, *[-1] * (128 - len(numbers)))


def plan(kind, cin, cout):
    """N, RB, and the numbers of passes and blocks of a halo kernel."""
    size = KINDS[kind][1]
    n = largest(cout, (64, 48, 32, 16) if kind == "f32" else (128, 64, 48, 32, 16) if cout % 96 else (96,))
    rb = largest(cin * size, (128, 64, 32))
    return n, rb, cin * size // rb, cout // n


def pack(kind, w, gradient=False, img=None):
    """The image for `convolve`; with `gradient`, the mirrored image for the input's gradient."""
    at = index_of(w.shape[1:4])[0]
    at = at[::-1] if gradient else at
    if kind == "halves":
        parts, largest_bits = split(w, 1)
        return pack_offsets("f16", parts[0], at, gradient, img and img[0]), largest_bits
    return pack_offsets(kind, w, at, gradient, img)


def pack_offsets(kind, w, at, transposed=False, img=None, columns=None):
    cout, kz, ky, kx, cin = w.shape
    size = KINDS[kind][1]
    n = columns or plan(kind, cout if transposed else cin, cin if transposed else cout)[0]
    rb = largest((cout if transposed else cin) * size, (128, 64, 32))
    count = len(at) * cin * cout * size // (4 if kind == "exact" else 16)
    if img is None:
        img = empty(len(at) * cin * cout * (2 if kind == "f32" else 1), dtype=w.dtype)
    K.launch(module_of(kind, "pack"), f"wm_pack_{kind}_r{rb}", up(count, 256), 256, 0, w, img, cin, cout, kz * ky * kx, len(at), index(at), n, int(transposed), count)
    return img


def convolve(kind, sites, x, img, cin, cout, kernel=(3, 3, 3), y=None, bias=None, residual=None, activation=0):
    n, rb, passes, blocks = plan(kind, cin, cout)
    small = n <= 32 and rb <= 64
    threads, per_sm, limit = (384, 2, 113) if small else (640, 1, 227)
    fixed = 1056 + 2 * (MOST + 1) * rb + 5120
    stage = n * rb * (2 if kind == "f32" else 1) + 528
    stages = min(10, (limit * 1024 - fixed) // stage)
    shared = fixed + stages * stage
    if y is None:
        y = torch.empty(sites.n, cout, dtype=x.dtype, device="cuda")
    scales = None, None
    if kind == "halves":
        (x, largest_x), (img, largest_w) = split(x, 1), img
        scales = largest_x, largest_w
    grid = min(sites.tiles * 4 * blocks, 132 * per_sm)
    K.launch("halo", f"wm_halo_{kind}_n{n}_r{rb}", grid, threads, shared, x, img, y, *sites.parts_of_map(), passes, blocks, index_of(kernel)[1], MOST, stages, bias, residual, activation, *scales)
    return y


def wgrad_shape(ci, co):
    opw = 64 // ci
    wgs = 3 if (ci == 64 and co >= 32) or (ci == 32 and co == 64) else 4
    units = {64: {64: 3, 32: 5, 16: 7}, 32: {64: 3, 32: 4, 16: 4}, 16: {64: 2, 32: 2, 16: 2}}[ci][co]
    span = min(27, wgs * units * opw)
    return span, up(27, span), wgs * 128


def split(x, many):
    """Parts (many, rows, channels) in f16 that add up to x, scaled; and the bits of its largest magnitude."""
    largest_bits = torch.zeros(1, dtype=torch.int32, device="cuda")
    K.launch("split", "wm_largest", min(1056, up(x.numel(), 4096)), 256, 0, x, x.numel(), largest_bits)
    parts = empty(many, *x.shape, dtype=torch.float16)
    K.launch("split", "wm_split_half", up(x.numel(), 1024), 256, 0, x, parts, x.numel(), many, largest_bits)
    return parts, largest_bits


def weight_gradient(kind, sites, x, g, kernel=(3, 3, 3), sums=None, dw=None):
    cin, cout = x.shape[1], g.shape[1]
    _, bits, back = index_of(kernel)
    ci, co = largest(cin, (64, 32, 16)), largest(cout, (64, 32, 16))
    span, groups, threads = wgrad_shape(ci, co)
    stride = up(256 * co * 2 + (MOST + 1) * ci * 2 + span * 512, 1024) * 1024
    combos = groups * (cin // ci) * (cout // co)
    splits = max(1, min(sites.tiles, 132 // combos))
    if sums is None:
        sums = empty(splits * 27 * cin * cout, dtype=torch.float32)
    if dw is None:
        dw = empty(cout, *kernel, cin, dtype=torch.float32)
    halves = kind in ("f16", "bf16")
    if halves:
        pairs, xs, gs = [(0, 0)], [x], [g]
    else:  # small products first
        many = 2 if kind == "f32" else 1
        pairs = [(0, 0)] if many == 1 else [(0, 1), (1, 0), (0, 0)]
        kind, (xs, x_largest), (gs, g_largest) = "f16", split(x, many), split(g, many)
    for i, (a, b) in enumerate(pairs):
        K.launch("wgrad", f"wm_wgrad_{kind}_i{ci}_o{co}", (splits, combos), threads, 1024 + 2 * stride + 7200, xs[a], gs[b], sums, *sites.parts_of_map(), cin, cout, bits, MOST, stride, 64 if halves else 16, int(i > 0))
    scales = () if halves else (x_largest, g_largest)
    K.launch("sum", "wm_wgrad_sum" if halves else "wm_wgrad_sum_scaled", up(dw.numel(), 256), 256, 0, sums, dw, cin, cout, kernel[0] * kernel[1] * kernel[2], 27, index(back), splits, *scales)
    return dw


def gather(kind, x, img, table, cout, y=None, order=None, bias=None, residual=None, activation=0):
    """Convolution over table (offsets, n); img by `pack_offsets(kind, w, range(offsets))`."""
    cin, (offsets, n) = x.shape[1], table.shape
    size = KINDS[kind][1]
    columns, rb = gather_columns(kind, cout), largest(cin * size, (128, 64, 32))
    shared = 1024 + 2 * (128 + columns) * rb + offsets * 516 + (2 * columns * rb if kind == "f32" else 0)
    if y is None:
        y = torch.empty(n, cout, dtype=x.dtype, device="cuda")
    threads = 256 if columns >= 64 and kind != "exact" else 128
    K.launch(module_of(kind, "gather"), f"wm_gather_{kind}_n{columns}_r{rb}", (up(n, 128), cout // columns), threads, shared, x, img, y, table, order, n, cin * size // rb, offsets, bias, residual, activation)
    return y


def gather_order(table):
    """An order of the targets that puts those with the same offsets together."""
    offsets, n = table.shape
    order = empty(n)
    K.launch("order", "wm_gather_order", up(n, 1024), 1024, 0, table, n, offsets, order)
    return order


def gather_columns(kind, cout):
    return largest(cout, (64, 32, 16) if kind in ("f32", "exact") else (128, 64, 32, 16))


def module_of(kind, name):
    """The file of a kernel over tables: products without tensor cores have a separate one."""
    return "exact" if kind == "exact" else name


def gather_weight_gradient(kind, x, g, table, sums=None, dw=None):
    """dW (out, offsets, in) over table (offsets, n)."""
    cin, cout, (offsets, n) = x.shape[1], g.shape[1], table.shape
    size = KINDS[kind][1]
    ci, co = [largest(c, (64, 32, 16) if size == 2 else (32, 16)) for c in (cin, cout)]
    pieces = (cin // ci) * (cout // co)
    blocks = max(1, min(up(n, 128), 1056 // (offsets * pieces)))
    if sums is None:
        sums = empty(4 * blocks * offsets * cin * cout, dtype=torch.float32)
    if dw is None:
        dw = empty(cout, offsets, cin, dtype=torch.float32)
    K.launch("gather_wgrad", f"wm_gather_wgrad_{kind}_i{ci}_o{co}", (blocks, offsets, pieces), 128, 4 * (64 * (ci + co) * size + 512), x, g, sums, table, n, cin, cout)
    K.launch("sum", "wm_wgrad_sum", up(dw.numel(), 256), 256, 0, sums, dw, cin, cout, offsets, offsets, index(range(offsets)), 4 * blocks)
    return dw
