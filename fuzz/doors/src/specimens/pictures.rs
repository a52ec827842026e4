//! Pictures.

use super::{List, fixture};

/// A chunk of a PNG file with its checksum.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&name[..], data].concat();
    [&(data.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
}

/// The checksum of PNG's and zip's, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A PNG file: sides, depth, colours, and chunks after them.
fn png(width: u32, height: u32, depth: u8, colours: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colours, 0, 0, 0]].concat();
    let chunks =
        [vec![chunk(b"IHDR", &header)], chunks.to_vec(), vec![chunk(b"IEND", &[])]].concat().concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunks].concat()
}

pub fn add(all: &mut List) {
    for name in [
        "rgb.png",
        "rgb16.png",
        "rgba.png",
        "grey.png",
        "grey16.png",
        "grey_alpha.png",
        "one_bit.png",
        "palette.png",
        "grey.jpg",
        "example_0.png",
    ] {
        all.good("picture", &format!("valid-{name}"), fixture(&format!("tests/features/{name}")));
    }
    // Zeros, stored: a row of 4 pixels with its filter.
    let rows = |filter: u8| {
        let row = [&[filter][..], &[0; 12]].concat();
        let data = row.repeat(4);
        let len = data.len() as u16;
        let adler = data.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        let adler = (adler.1 << 16 | adler.0).to_be_bytes();
        [&[0x78, 1, 1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), &data, &adler].concat()
    };
    let data = |filter| vec![chunk(b"IDAT", &rows(filter))];
    all.good("picture", "valid-stored.png", png(4, 4, 8, 2, &data(0)));
    all.bad("picture", "filter-unknown.png", "not a usable image", png(4, 4, 8, 2, &data(9)));
    all.bad("picture", "sides-huge.png", "not a usable image", png(u32::MAX, u32::MAX, 16, 6, &data(0)));
    all.bad("picture", "sides-wrap.png", "not a usable image", png(1 << 31, 1 << 31, 8, 2, &data(0)));
    all.bad("picture", "sides-largest-cut-short.png", "not a usable image", png(16384, 8192, 8, 2, &data(0)));
    all.bad("picture", "side-of-none.png", "not a usable image", png(0, 4, 8, 2, &data(0)));
    all.bad("picture", "depth-3.png", "not a usable image", png(4, 4, 3, 2, &data(0)));
    all.bad("picture", "colours-7.png", "not a usable image", png(4, 4, 8, 7, &data(0)));
    all.bad("picture", "palette-missing.png", "not a usable image", png(4, 4, 8, 3, &data(0)));
    all.bad("picture", "no-data.png", "not a usable image", png(4, 4, 8, 2, &[]));
    let mut broken = png(4, 4, 8, 2, &data(0));
    broken[20] ^= 1;
    all.bad("picture", "checksum.png", "not a usable image", broken);
    let mut long = png(4, 4, 8, 2, &data(0));
    long[33..37].copy_from_slice(&u32::MAX.to_be_bytes());
    all.bad("picture", "chunk-length-huge.png", "not a usable image", long);
    let jpeg = fixture("tests/features/grey.jpg");
    all.bad("picture", "cut-short.jpg", "cut short", &jpeg[..jpeg.len() / 2]);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    let with = |place: usize, bytes: &[u8]| {
        let mut jpeg = jpeg.clone();
        jpeg[frame + place..][..bytes.len()].copy_from_slice(bytes);
        jpeg
    };
    all.bad("picture", "sides-huge.jpg", "not a usable image", with(5, &[0xff; 4]));
    all.bad("picture", "side-of-none.jpg", "not a usable image", with(5, &[0; 4]));
    all.bad("picture", "components-none.jpg", "not a usable image", with(9, &[0]));
    all.bad("picture", "table-far-away.jpg", "not a usable image", with(12, &[9]));
    all.bad("picture", "sampling-none.jpg", "not a usable image", with(11, &[0]));
    all.bad("picture", "other-format", "neither PNG nor JPEG", *b"GIF89a\x01\0\x01\0\0\0\0;");
    all.bad("picture", "empty", "neither PNG nor JPEG", []);
    more(all, &rows(0));
}

/// Pictures that are small in a file and large outside, and odd chunks and segments.
fn more(all: &mut List, rows: &[u8]) {
    let data = || chunk(b"IDAT", rows);
    // A profile, a text and a palette before the data, each of which a reader may unpack or not.
    let profile = [&b"name\0\0"[..], &deflated(4 << 20)].concat();
    all.good("picture", "valid-profile-bomb.png", png(4, 4, 8, 2, &[chunk(b"iCCP", &profile), data()]));
    let text = [&b"name\0\0"[..], &deflated(4 << 20)].concat();
    all.good("picture", "valid-text-bomb.png", png(4, 4, 8, 2, &[chunk(b"zTXt", &text), data()]));
    let many: Vec<Vec<u8>> = (0..1000).map(|_| chunk(b"tEXt", b"a\0b")).chain([data()]).collect();
    all.good("picture", "valid-many-texts.png", png(4, 4, 8, 2, &many));
    all.good(
        "picture",
        "valid-rows-bomb.png",
        png(4, 4, 8, 2, &[chunk(b"IDAT", &deflated(4 << 20)[..2000])]),
    );
    all.good("picture", "valid-rows-and-more.png", png(4, 4, 8, 2, &[chunk(b"IDAT", &deflated(4 << 20))]));
    all.bad(
        "picture",
        "chunk-unknown-needed.png",
        "not a usable image",
        png(4, 4, 8, 2, &[chunk(b"ABCD", b""), data()]),
    );
    // Of the second there is a part of a colour more, of the third nothing.
    for (name, bytes) in [("too-long", 3 * 300), ("of-parts", 49), ("of-nothing", 0)] {
        let transparent = [chunk(b"PLTE", &vec![7; bytes]), chunk(b"tRNS", &[255; 4]), data()];
        all.bad("picture", &format!("palette-{name}.png"), "a palette of", png(4, 4, 4, 3, &transparent));
    }
    let animation = [chunk(b"acTL", &[0xff; 8]), chunk(b"fcTL", &[0xff; 26]), data()];
    all.bad("picture", "animation-of-no-size.png", "not a usable image", png(4, 4, 8, 2, &animation));
    let transparent = [chunk(b"tRNS", &[0; 1000]), data()];
    all.good("picture", "valid-transparency-too-long.png", png(4, 4, 8, 2, &transparent));

    let jpeg = fixture("tests/features/grey.jpg");
    all.bad("picture", "grey-of-the-longest-sides.jpg", "too large", scans(16384, 16384, 0));
    all.bad("picture", "grey-of-the-longest-sides.png", "too large", png(16384, 16384, 1, 0, &[data()]));
    all.good("picture", "valid-scans-many.jpg", scans(64, 64, 2000));
    all.bad("picture", "scans-many-large.jpg", "401 scans", scans(16384, 8192, 400));
    all.bad(
        "picture",
        "scans-and-no-frame.jpg",
        "not a usable image",
        [&scans(64, 64, 20)[..71], &scans(64, 64, 20)[84..]].concat(),
    );
    // Marks after which one reader expects a segment and another none: an end mark in it would hide the rest from the other.
    let large = scans(16384, 8192, 99);
    for (name, mark) in [("restart", 0xd0), ("tem", 0x01), ("start", 0xd8)] {
        let hidden = [&large[..2], &[0xff, mark, 0, 4, 0xff, 0xd9], &large[2..]].concat();
        all.bad("picture", &format!("end-hidden-by-{name}.jpg"), "damaged", hidden);
    }
    let end = jpeg.len() - 2;
    let marks = [&jpeg[..end], &[0xff, 0xd0].repeat(3000), &jpeg[end..]].concat();
    all.good("picture", "valid-marks-many.jpg", marks);
    let comments = [&jpeg[..2], &[0xff, 0xfe, 0, 2].repeat(1000), &jpeg[2..]].concat();
    all.good("picture", "valid-comments-many.jpg", comments);
    let profile = [&[0xff, 0xe2, 0, 20][..], b"ICC_PROFILE\0", &[255, 0, 1, 2, 3, 4]].concat();
    all.good("picture", "valid-profile-odd.jpg", [&jpeg[..2], &profile, &jpeg[2..]].concat());
    all.bad(
        "picture",
        "segment-of-no-length.jpg",
        "not a usable image",
        [&jpeg[..2], &[0xff, 0xe0, 0, 0], &jpeg[2..]].concat(),
    );
    let tables = jpeg.windows(2).position(|pair| pair == [0xff, 0xc4]).expect("codes");
    let mut codes = jpeg.clone();
    codes[tables + 5..tables + 21].fill(0xff);
    all.bad("picture", "codes-too-many.jpg", "not a usable image", codes);
    let mut restart = jpeg.clone();
    restart.splice(2..2, [0xff, 0xdd, 0, 4, 0, 0]);
    all.good("picture", "valid-restart-of-none.jpg", restart);
}

/// That many zeros, compressed as zlib has it.
fn deflated(zeros: usize) -> Vec<u8> {
    // A gzip member of a zip archive is the same stream without zlib's frame.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("a", options).expect("a member");
    std::io::Write::write_all(&mut zip, &vec![0; zeros]).expect("memory");
    let archive = zip.finish().expect("memory").into_inner();
    let mut read = zip::ZipArchive::new(std::io::Cursor::new(&archive[..])).expect("what was just written");
    let member = read.by_index_raw(0).expect("its member");
    let start = member.data_start().expect("its place") as usize;
    let stream = &archive[start..][..member.compressed_size() as usize];
    // Zeros sum to nothing, of which the checksum's upper half counts how many there were.
    let adler = ((zeros % 65521) as u32) << 16 | 1;
    [&[0x78, 0x9c], stream, &adler.to_be_bytes()].concat()
}

/// A progressive JPEG of one colour whose scans hold no data: each is a pass over all of it for a reader who takes them seriously.
fn scans(width: u16, height: u16, count: usize) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    jpeg.extend([1; 64]);
    jpeg.extend([0xff, 0xc2, 0, 11, 8]);
    jpeg.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    jpeg.extend([1, 1, 0x11, 0]);
    // One code of one bit each for differences and for runs.
    for table in [0x00, 0x10] {
        jpeg.extend([0xff, 0xc4, 0, 20, table, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0x01]);
    for scan in 0..count {
        let band = 1 + (scan % 63) as u8;
        jpeg.extend([0xff, 0xda, 0, 8, 1, 1, 0, band, band, 0x01, 0]);
    }
    jpeg.extend([0xff, 0xd9]);
    jpeg
}
