"""Displays: time to make one and its bytes in the notebook, beside k3d, plotly, matplotlib and lovely-numpy where they can show the same."""

import numpy as np

from harness import Case, Work, WrongAnswer, peer


def shell(n):
    """About `n` voxels of a ball's shell, (x, y, z), each with a smooth value, and the side of the grid."""
    radius = (n / (4 * np.pi * 2.2)) ** 0.5
    side = int(2 * radius) + 6
    axis = np.arange(side) - (side - 1) / 2
    sites = []
    for x in range(side):  # one slice at a time: the whole grid would take gigabytes
        near = np.abs(np.sqrt(axis[x] ** 2 + axis[:, None] ** 2 + axis[None, :] ** 2) - radius) < 1.1
        y, z = np.nonzero(near)
        sites.append(np.stack([np.full(len(y), x), y, z], axis=1))
    sites = np.concatenate(sites).astype(np.int32)
    values = np.sin(0.1 * sites[:, 0]) + np.cos(0.07 * sites[:, 1])
    return {"sites": sites, "values": values.astype(np.float32)}, side


def ball(n):
    """A ball of about `n` triangles, with slightly moved corners."""
    rings = max(3, round((n / 4) ** 0.5))
    theta, phi = np.meshgrid(np.linspace(0.05, np.pi - 0.05, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False), indexing="ij")
    r = 1 + 0.1 * np.sin(5 * theta) * np.cos(4 * phi)
    vertices = np.stack([r * np.sin(theta) * np.cos(phi), r * np.cos(theta), r * np.sin(theta) * np.sin(phi)], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings), np.arange(2 * rings), indexing="ij")
    a, b = i * 2 * rings + j, i * 2 * rings + (j + 1) % (2 * rings)
    faces = np.concatenate([np.stack([a, b, a + 2 * rings], axis=-1).reshape(-1, 3), np.stack([b, b + 2 * rings, a + 2 * rings], axis=-1).reshape(-1, 3)])
    return {"vertices": vertices.astype(np.float32), "faces": faces.astype(np.int64)}


def shown(_inputs, ours, theirs):
    """Both must show the same number of things."""
    if not np.array_equal(ours["shown"], theirs["shown"]):
        raise WrongAnswer(f"ours shows {ours['shown']}, the peer {theirs['shown']}")


def size(html):
    return {"bytes": len(html.encode())}


@peer("k3d", "k3d")
def k3d(case):
    import k3d as k

    def voxels():
        sites, values = case.inputs["sites"], case.inputs["values"]
        # k3d colours a voxel by a byte that picks from a list of colours.
        low, high = values.min(), values.max()
        levels = (1 + (values - low) / (high - low) * 254).astype(np.uint8)
        side = case.params["side"]
        return k.sparse_voxels(np.column_stack([sites, levels]).astype(np.uint16), [side] * 3, color_map=[i << 16 | (255 - i) for i in range(256)])

    def mesh():
        return k.mesh(case.inputs["vertices"], case.inputs["faces"].astype(np.uint32))

    what, count = (voxels, len(case.inputs["sites"])) if "sites" in case.inputs else (mesh, len(case.inputs["faces"]))

    def run():
        plot = k.plot()
        plot += what()
        return plot.get_snapshot()

    return Work(run, lambda html: {"shown": np.array([count])}, size)


@peer("plotly", "plotly")
def plotly(case):
    import plotly.graph_objects as go

    def voxels():
        # plotly has no voxels; square markers replace them.
        x, y, z = case.inputs["sites"].T
        return go.Scatter3d(x=x, y=y, z=z, mode="markers", marker={"symbol": "square", "size": 4, "color": case.inputs["values"], "colorscale": "Viridis", "showscale": True})

    def mesh():
        (x, y, z), (i, j, k) = case.inputs["vertices"].T, case.inputs["faces"].T
        return go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k)

    what, count = (voxels, len(case.inputs["sites"])) if "sites" in case.inputs else (mesh, len(case.inputs["faces"]))
    return Work(lambda: go.Figure(what()).to_html(full_html=False, include_plotlyjs=True), lambda html: {"shown": np.array([count])}, size)


@peer("matplotlib", "matplotlib")
def matplotlib(case):
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sites, values, side = case.inputs["sites"], case.inputs["values"], case.params["side"]
    filled = np.zeros([side] * 3, dtype=bool)
    filled[tuple(sites.T)] = True
    colors = np.zeros([side] * 3 + [4])
    colors[tuple(sites.T)] = mpl.colormaps["viridis"]((values - values.min()) / (values.max() - values.min()))

    def run():
        figure = Figure(figsize=(8, 6), dpi=100)
        FigureCanvasAgg(figure)
        figure.add_subplot(projection="3d").voxels(filled, facecolors=colors)
        file = io.BytesIO()
        figure.savefig(file)
        return file.getvalue()

    return Work(run, lambda png: {"shown": np.array([len(sites)])}, lambda png: {"bytes": len(png)})


@peer("lovely-numpy", "lovely_numpy")
def lovely(case):
    from lovely_numpy import lo

    values = case.inputs["values"]
    return Work(lambda: repr(lo(values)), lambda text: {"shown": np.array([values.size])}, lambda text: {"bytes": len(text)})


def cases(quick):
    for n in (1_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        _, side = shell(n)
        voxels, label = (lambda n=n: shell(n)[0]), f"{n:,} voxels"
        yield Case("VoxelPlot 800×600", label, "voxel_plot", voxels, {"side": side}, (matplotlib,) if n == 1_000 else (), shown)
        yield Case("VoxelViewer", label, "voxel_viewer", voxels, {"side": side}, (k3d, plotly), shown, headline=n == 100_000)
        yield Case("sparse tensor's card", label, "sparse_card", voxels, {"side": side}, check=shown)
    for n in (10_000,) if quick else (1_000, 10_000, 100_000, 1_000_000):
        faces, label = (lambda n=n: ball(n)), f"{n:,} faces"
        yield Case("MeshPlot 800×600", label, "mesh_plot", faces, check=shown)
        yield Case("MeshViewer", label, "mesh_viewer", faces, {}, (k3d, plotly), shown)
    for n in (100_000, 100_000_000) if quick else (1_000, 10_000, 100_000, 1_000_000, 100_000_000):
        values, label = (lambda n=n: {"values": np.random.default_rng(0).standard_normal(n, dtype=np.float32)}), f"{n:,} elements"
        yield Case("tensor's card", label, "tensor_card", values, {}, (lovely,), shown)
    for n in (64,) if quick else (10, 22, 46, 100):
        axis = np.linspace(-1, 1, n, dtype=np.float32)
        grid = lambda axis=axis: {"grid": np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) - 0.7}
        yield Case("SliceGrid, three slices", f"{n}³ cells", "slice_grid", grid, check=shown)
