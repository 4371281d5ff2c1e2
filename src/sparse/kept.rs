//! What is kept with sites and with kernel maps for later passes: a lookup, tiles, a table on a GPU, the batch elements of rows. Only those
//! who build it know what it is.

use std::any::Any;
use std::sync::Arc;

use candle_core::DeviceLocation;

use crate::sync::{Mutex, lock};

/// Values by type, device and direction. Each type belongs to one module.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<(Place, Arc<dyn Any + Send + Sync>)>>);

#[derive(Clone, Copy, PartialEq)]
struct Place {
    device: DeviceLocation,
    reversed: bool,
}

impl Kept {
    /// The value of type `T` for a device and a direction. It is built if it does not exist.
    ///
    /// No lock is held while a value is built: building may use other threads, and these may wait for a value too. Two threads that ask at
    /// the same time may both build; both get the value that was stored first.
    pub fn get_or_build<T: Any + Send + Sync, E>(
        &self,
        device: DeviceLocation,
        reversed: bool,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let place = Place { device, reversed };
        if let Some(there) = find(&lock(&self.0), place) {
            return Ok(there);
        }
        let built = Arc::new(build()?);
        let mut values = lock(&self.0);
        Ok(find(&values, place).unwrap_or_else(|| {
            values.push((place, built.clone()));
            built
        }))
    }
}

fn find<T: Any + Send + Sync>(values: &[(Place, Arc<dyn Any + Send + Sync>)], place: Place) -> Option<Arc<T>> {
    values.iter().filter(|(at, _)| *at == place).find_map(|(_, value)| value.clone().downcast().ok())
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} kept", lock(&self.0).len())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{Error, Result};

    const CPU: DeviceLocation = DeviceLocation::Cpu;
    const GPU: DeviceLocation = DeviceLocation::Cuda { gpu_id: 0 };

    #[test]
    fn each_type_device_and_direction_is_built_once() {
        let kept = Kept::default();
        let number = |device, reversed, value: u32| {
            let Ok(kept) = kept.get_or_build(device, reversed, || Ok::<_, Infallible>(value));
            *kept
        };
        assert_eq!([number(CPU, false, 1), number(CPU, true, 2), number(GPU, false, 3)], [1, 2, 3]);
        let Ok(text) = kept.get_or_build(CPU, false, || Ok::<_, Infallible>("text"));
        assert_eq!(*text, "text");
        assert_eq!([number(CPU, false, 9), number(CPU, true, 9), number(GPU, false, 9)], [1, 2, 3]);
        assert_eq!(format!("{kept:?}"), "4 kept");
    }

    #[test]
    fn a_value_that_cannot_be_built_is_asked_for_again() {
        let kept = Kept::default();
        let built = |value: Result<u8>| kept.get_or_build(CPU, false, || value);
        assert!(built(Err(Error::Interrupted)).is_err());
        assert_eq!(*built(Ok(5)).unwrap(), 5);
    }
}
