//! Ways out of a cell besides `?`: `return`, and macros that return an error from the function around them.

use std::fmt::Debug;

/// Leaves the cell like a `return` in a function that returns a `Result`.
#[macro_export]
macro_rules! leave {
    () => {
        return $crate::store::done()
    };
    (Ok($value:expr)) => {{
        $value;
        return $crate::store::done();
    }};
    (boxed $result:expr) => {{
        $crate::leave::ended::<::std::boxed::Box<dyn ::std::error::Error>>($result)?;
        return $crate::store::done();
    }};
    ($result:expr) => {{
        $crate::leave::ended($result)?;
        return $crate::store::done();
    }};
}

/// Runs a macro that returns an error, such as `bail!`, and leaves the cell with that error. `await` stands before a macro that waits for
/// futures.
#[macro_export]
macro_rules! fail {
    (await $call:expr) => {{
        let failed: ::std::result::Result<(), _> = async { $call }.await;
        failed?;
        ::std::unreachable!()
    }};
    ($call:expr) => {{
        (|| -> ::std::result::Result<(), _> { $call })()?;
        ::std::unreachable!()
    }};
}

/// Runs a macro that may return an error, such as `ensure!`, and leaves the cell if it does. `await` stands before a macro that waits for
/// futures.
#[macro_export]
macro_rules! check {
    (await $call:expr) => {{
        let checked: ::std::result::Result<(), _> = async {
            $call;
            Ok(())
        }
        .await;
        checked?
    }};
    ($call:expr) => {
        (|| -> ::std::result::Result<(), _> {
            $call;
            Ok(())
        })()?
    };
}

/// Has the value of a macro of the notebook that may return an error, and leaves the cell if it does.
#[macro_export]
macro_rules! own {
    (boxed $($call:tt)*) => {
        (|| -> ::std::result::Result<_, ::std::boxed::Box<dyn ::std::error::Error>> { Ok({ $($call)* }) })()?
    };
    ($($call:tt)*) => {
        (|| -> ::std::result::Result<_, _> { Ok({ $($call)* }) })()?
    };
}

/// The result with which a cell ends. Its type decides what `return` in a cell may return.
pub fn ended<E: Debug>(result: Result<(), E>) -> Result<(), E> {
    result
}
