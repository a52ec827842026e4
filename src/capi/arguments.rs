//! Pointers from C, checked as far as pointers can be.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;

use super::Failure;

/// A `bool` of C. Its byte is not trusted to be 0 or 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bool(u8);

impl Bool {
    pub(super) fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Bool(value.into())
    }
}

/// A string.
///
/// # Safety
/// The pointer is NULL or points to a string that ends with a NUL and does not change during `'a`.
pub(super) unsafe fn text<'a>(name: &'static str, pointer: *const c_char) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL as just checked; the rest is this function's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| {
        Failure::argument(format_args!("{name} is not UTF-8 from byte {}: encode it so", error.valid_up_to()))
    })
}

/// An array to read.
///
/// # Safety
/// The pointer is NULL or points to `count` values that do not change during `'a`.
pub(super) unsafe fn slice<'a, T: Copy>(
    name: &'static str,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T], Failure> {
    check(name, pointer, count)?;
    // SAFETY: `check` has seen to alignment and size; the rest is this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// An array to read, or nothing if the pointer is NULL.
///
/// # Safety
/// As for [`slice`].
pub(super) unsafe fn opt_slice<'a, T: Copy>(
    name: &'static str,
    pointer: *const T,
    count: usize,
) -> Result<Option<&'a [T]>, Failure> {
    // SAFETY: the contracts are the same.
    (!pointer.is_null()).then(|| unsafe { slice(name, pointer, count) }).transpose()
}

/// An array to fill. NULL will do for one without places.
///
/// # Safety
/// The pointer is NULL or points to room for `count` values that nothing else uses during `'a`.
pub(super) unsafe fn places<'a, T: Copy>(
    name: &'static str,
    pointer: *mut T,
    count: usize,
) -> Result<&'a mut [MaybeUninit<T>], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(name, pointer, count)?;
    // SAFETY: `check` has seen to alignment and size; the rest is this function's contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
}

/// One value to read.
///
/// # Safety
/// The pointer is NULL or points to a value that does not change meanwhile.
pub(super) unsafe fn one<T: Copy>(name: &'static str, pointer: *const T) -> Result<T, Failure> {
    check(name, pointer, 1)?;
    // SAFETY: `check` has seen to alignment; the rest is this function's contract.
    Ok(unsafe { pointer.read() })
}

/// A place for one result.
///
/// # Safety
/// The pointer is NULL or points to room for a value that nothing else uses during `'a`.
pub(super) unsafe fn place<'a, T: Copy>(
    name: &'static str,
    pointer: *mut T,
) -> Result<&'a mut MaybeUninit<T>, Failure> {
    check(name, pointer, 1)?;
    // SAFETY: `check` has seen to alignment; the rest is this function's contract.
    Ok(unsafe { &mut *pointer.cast() })
}

/// A place for a count, which is 0 from now on: whatever fails afterwards leaves it so.
///
/// # Safety
/// As for [`place`].
pub(super) unsafe fn count<'a>(name: &'static str, pointer: *mut usize) -> Result<&'a mut usize, Failure> {
    // SAFETY: the contracts are the same.
    Ok(unsafe { place(name, pointer) }?.write(0))
}

fn check<T>(name: &'static str, pointer: *const T, count: usize) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(format_args!(
            "{name} is at an address that is no multiple of {}: give an array of its own type",
            align_of::<T>()
        )));
    }
    let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    let end = bytes.and_then(|bytes| pointer.addr().checked_add(bytes));
    if end.is_none() {
        return Err(Failure::argument(format_args!("{name} has {count} values, which no memory holds")));
    }
    Ok(())
}

fn null(name: &'static str) -> Failure {
    Failure::argument(format_args!("{name} is NULL, and must not be"))
}

/// A struct that begins with its size by the caller's header, and so may be shorter than it is here.
///
/// # Safety
/// It is `#[repr(C)]`, its first field is the `usize` of that size, and any bytes make a value of it, zeros the one with all defaults.
///
/// A new version puts its fields behind all others, never into padding: of a caller that was compiled before, padding holds anything,
/// and would be taken for the field.
pub(super) unsafe trait Versioned: Copy {
    /// The type's name in the header.
    const NAME: &'static str;
    /// The size of its first version: up to the fields that may be left out.
    const FIRST: usize;
    /// The sizes of all its versions.
    const SIZES: &'static [usize] = &[Self::FIRST, size_of::<Self>()];
}

/// The size that the caller's header gives a struct.
///
/// # Safety
/// The pointer is NULL or points to a struct that begins with its size.
unsafe fn struct_size<T: Versioned>(name: &'static str, pointer: *const T) -> Result<usize, Failure> {
    check(name, pointer, 1)?;
    // SAFETY: not NULL and aligned as just checked; the size stands first.
    let size = unsafe { pointer.cast::<usize>().read() };
    let known = size_of::<T>();
    if size > known {
        return Err(Failure::argument(format_args!(
            "{name}->struct_size is {size}, but this library's {} has {known} bytes: set it to sizeof({0}), and use the header that \
             came with the library",
            T::NAME
        )));
    }
    if !T::SIZES.contains(&size) {
        return Err(Failure::argument(format_args!(
            "{name}->struct_size is {size}, which is not the size of any version of {}: set it to sizeof({0})",
            T::NAME
        )));
    }
    Ok(size)
}

/// Reads a caller's struct; fields that it is too short for are zero.
///
/// # Safety
/// The pointer is NULL or points to a struct of the size that it begins with.
pub(super) unsafe fn read<T: Versioned>(name: &'static str, pointer: *const T) -> Result<T, Failure> {
    // SAFETY: the contracts are the same.
    let size = unsafe { struct_size(name, pointer) }?;
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `size` bytes can be read by contract and fit, as `struct_size` has checked.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), size) };
    // SAFETY: any bytes make a value of a `Versioned` type.
    Ok(unsafe { value.assume_init() })
}

/// A caller's struct to fill in, as far as it goes.
pub(super) struct Out<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Versioned> Out<T> {
    /// The struct's fields are zero from now on, so that whatever fails afterwards leaves no result of an earlier call.
    ///
    /// # Safety
    /// The pointer is NULL or points to a struct of the size that it begins with, which nothing else uses while this lives.
    pub unsafe fn new(name: &'static str, pointer: *mut T) -> Result<Self, Failure> {
        // SAFETY: the contracts are the same.
        let size = unsafe { struct_size(name, pointer.cast_const()) }?;
        let first = size_of::<usize>();
        // SAFETY: the caller's struct has `size` bytes, of which the size itself takes the first.
        unsafe { pointer.cast::<u8>().add(first).write_bytes(0, size - first) };
        Ok(Out { pointer, size })
    }

    /// Fills in all fields that the caller's struct has, but for the size itself.
    pub fn write(self, value: &T) {
        let first = size_of::<usize>();
        let source = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: both have `size` bytes, by contract of `new` and as it has checked.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.add(first),
                self.pointer.cast::<u8>().add(first),
                self.size - first,
            );
        }
    }
}

/// Data of the caller's that its callbacks get back.
#[derive(Clone, Copy)]
pub(super) struct UserData(*mut c_void);

// SAFETY: the library never looks behind the pointer; the header tells callers from which threads their callbacks run.
unsafe impl Send for UserData {}
// SAFETY: as for `Send`.
unsafe impl Sync for UserData {}

impl UserData {
    pub fn new(pointer: *mut c_void) -> Self {
        UserData(pointer)
    }

    /// The pointer. A method, so that closures capture the whole, which they may take to other threads.
    pub fn get(self) -> *mut c_void {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Sample {
        struct_size: usize,
        old: u32,
        flag: Bool,
        new: u64,
    }

    // SAFETY: `repr(C)` with the size first; numbers.
    unsafe impl Versioned for Sample {
        const NAME: &'static str = "sample";
        const FIRST: usize = 16;
    }

    fn sample(struct_size: usize) -> Sample {
        Sample { struct_size, old: 1, flag: Bool(7), new: 2 }
    }

    #[test]
    fn fields_beyond_the_callers_struct_are_defaults() {
        // SAFETY: a struct of its own size, then one that claims less.
        let (whole, part) = unsafe { (read("s", &sample(24)).unwrap(), read("s", &sample(16)).unwrap()) };
        assert_eq!((whole.old, whole.flag.get(), whole.new), (1, true, 2));
        assert_eq!((part.old, part.flag.get(), part.new), (1, true, 0));
    }

    #[test]
    fn only_the_callers_part_is_written() {
        let mut target = Sample { struct_size: 16, old: 5, flag: Bool(5), new: 9 };
        // SAFETY: the struct is larger than it says.
        let out = unsafe { Out::new("s", &raw mut target) }.unwrap();
        assert_eq!(target, Sample { struct_size: 16, old: 0, flag: Bool(0), new: 9 });
        out.write(&sample(24));
        assert_eq!(target, Sample { struct_size: 16, old: 1, flag: Bool(7), new: 9 });
    }

    #[test]
    fn refuses_sizes_that_no_version_had() {
        for size in [0, 1, 8, 15, 17, 20, 23, 25, 32, usize::MAX] {
            // SAFETY: only the size is read of a struct whose size is refused.
            assert!(unsafe { read("s", &sample(size)) }.is_err(), "{size}");
        }
    }

    #[test]
    fn refuses_arrays_that_no_memory_holds() {
        let values = [0f32; 4];
        let start = values.as_ptr();
        for count in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4 + 1] {
            // SAFETY: refused before anything is read.
            assert!(unsafe { slice("values", start, count) }.is_err(), "{count}");
        }
        // SAFETY: a misaligned pointer is refused before it is read.
        assert!(unsafe { slice("values", start.wrapping_byte_add(1), 1) }.is_err());
        // SAFETY: the array has four values.
        assert_eq!(unsafe { slice("values", start, 4) }.unwrap(), values);
        // SAFETY: as above, and what is misaligned is refused.
        unsafe {
            assert_eq!(one("value", start).unwrap(), values[0]);
            assert!(one("value", start.wrapping_byte_add(1)).is_err());
        }
    }
}
