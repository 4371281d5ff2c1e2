//! Notebook displays: every value can show itself.
//!
//! A [`Rich`] value shows a card, plot or viewer when it ends a cell. [`display()`] shows a value earlier, [`Display::update`] changes it
//! in place, and [`progress()`] adds a bar to a loop. Under stock `evcxr_jupyter` the same code shows its final state; in a terminal it
//! prints text; with `WAVEMESH_DISPLAY_DIR` it writes files.
//!
//! ```
//! use wavemesh::notebook;
//! notebook::html("<b>hi</b>").display();
//! for step in notebook::progress(0..3).label("steps") {
//!     let _ = step;
//! }
//! notebook::clear_output(true);
//! ```

#[macro_use]
mod view;

mod bundle;
mod cards;
mod colormap;
mod content;
mod describe;
mod draw;
mod frontend;
mod html;
mod layout;
mod live_plot;
mod mesh_plot;
mod notes;
mod numbers;
mod plot;
mod png;
mod point_plot;
mod progress;
mod rich;
mod shape_sheet;
mod slice_grid;
mod task_bars;
mod upright;
mod values;
mod viewer;
mod voxel_faces;
mod voxel_plot;
mod voxels;
mod widgets;

pub use bundle::MimeBundle;
pub use cards::gradients;
pub use colormap::Colormap;
pub use content::{Content, clear_output, flush, html, image, image_file, json, latex, markdown};
pub use describe::describe;
pub use draw::{Axis, Camera, Figure, FigureBackend, Picture, Theme, animation, contact_sheet, figure, figure_svg};
pub use html::escape;
pub use layout::{Layout, Titled, grid, hstack};
pub use live_plot::LivePlot;
pub use mesh_plot::MeshPlot;
pub use plot::{Number, Plot, bars, histogram, plot, scatter};
pub use point_plot::PointPlot;
pub use progress::{Progress, ProgressBar, WithBar, progress};
pub use rich::{Display, EvcxrDisplay, Rich, display, result_bundle, show, specialise};
pub use shape_sheet::ShapeSheet;
pub use slice_grid::{SliceGrid, ToVolume, Volume};
pub use task_bars::watch_tasks;
pub use viewer::{MeshViewer, PointViewer, VoxelViewer};
pub use voxel_plot::{Channel, ColorBy, VoxelPlot};
pub use voxels::{ToVoxels, Voxels};
pub use widgets::{
    Button, Checkbox, Controls, Dropdown, Interact, OpenComm, SendComm, Slider, SliderNumber, View, button, checkbox,
    dropdown, interact, reach_page, slider,
};
