#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;

const FINGERPRINT: u64 = 0x1234_5678_9abc_def0;

fn key(offset: u64) -> Key {
    Key { part: 0, tensor_type: TensorType::Q4_K, packing: 1, offset, rows: 16, columns: 256 }
}

fn buffer(len: usize, seed: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(len).expect("memory");
    buffer.as_mut_slice().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i as u8).wrapping_mul(31) ^ seed);
    buffer
}

/// Lengths around what is special: nothing, less than a page, a whole alignment, several pieces to hash.
const LENGTHS: [usize; 5] = [0, 1000, ALIGNMENT as usize, 2 * CHUNK + 77, 64];

/// A load of all tensors of [`LENGTHS`]; how many of them were packed, and why the file was not used.
fn load(path: &Path, fingerprint: u64) -> (usize, Option<String>) {
    let pool = Pool::new(2).expect("threads");
    let (file, complaint) = PackFile::open(path.to_path_buf(), fingerprint, &pool);
    let mut packed = 0;
    for (i, len) in LENGTHS.into_iter().enumerate() {
        let bytes = file.place(key(i as u64), len, || {
            packed += 1;
            Ok(buffer(len, i as u8))
        });
        let bytes = bytes.expect("bytes");
        assert!(bytes.as_slice() == buffer(len, i as u8).as_slice(), "tensor {i}");
        assert!(bytes.as_slice().as_ptr().addr().is_multiple_of(64), "tensor {i} is not aligned");
    }
    let written = file.finish().expect("a file");
    assert_eq!(written.is_some(), packed > 0, "it is written if and only if something is new");
    (packed, complaint)
}

/// A file of all tensors of [`LENGTHS`], in a folder that goes with the first value.
fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf.rfpack");
    assert_eq!(load(&path, FINGERPRINT), (LENGTHS.len(), None));
    (folder, path)
}

#[test]
fn a_second_load_packs_nothing_and_writes_nothing() {
    let (folder, path) = written();
    let before = fs::metadata(&path).and_then(|m| m.modified()).expect("a file");
    assert_eq!(load(&path, FINGERPRINT), (0, None));
    assert_eq!(fs::metadata(&path).and_then(|m| m.modified()).expect("a file"), before);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "temporary files are left");
}

#[test]
fn another_model_is_noticed_and_the_file_written_anew() {
    let (_folder, path) = written();
    let (packed, why) = load(&path, FINGERPRINT + 1);
    assert_eq!(packed, LENGTHS.len());
    assert!(why.is_some_and(|why| why.contains("another model")));
    assert_eq!(load(&path, FINGERPRINT + 1), (0, None));
}

#[test]
fn what_another_load_put_into_the_file_stays_in_it() {
    let (_folder, path) = written();
    let pool = Pool::new(1).expect("threads");
    let (file, _) = PackFile::open(path.clone(), FINGERPRINT, &pool);
    // Another packing of a tensor that is there, and a tensor that the file has with another size.
    for (key, len) in [(Key { packing: 9, ..key(1) }, 500), (key(4), 65)] {
        file.place(key, len, || Ok(buffer(len, 9))).expect("bytes");
    }
    assert!(file.finish().expect("a file").is_some());
    // Only the one of which the size has changed is packed again.
    assert_eq!(load(&path, FINGERPRINT), (1, None));
}

/// Every word of header and table, and bytes of tensors: noticed, packed anew, written anew.
#[test]
fn damage_anywhere_is_noticed() {
    let (_folder, path) = written();
    let good = fs::read(&path).expect("a file");
    let table = record(good.first_chunk().expect("a header"))[4] as usize;
    let tensors = [ALIGNMENT as usize, ALIGNMENT as usize + 999, table - ALIGNMENT as usize + 63];
    for at in (0..RECORD).step_by(7).chain((table..good.len()).step_by(7)).chain(tensors) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).expect("a file");
        let (packed, why) = load(&path, FINGERPRINT);
        assert!(why.is_some(), "damage at byte {at} is not noticed");
        assert_eq!(packed, LENGTHS.len(), "damage at byte {at}");
        assert!(fs::read(&path).expect("a file") == good, "after damage at byte {at} the file is another");
    }
}

#[test]
fn a_truncated_file_is_noticed() {
    let (_folder, path) = written();
    let good = fs::read(&path).expect("a file");
    for len in [0, 1, RECORD - 1, RECORD, ALIGNMENT as usize, good.len() / 2, good.len() - RECORD, good.len() - 1] {
        fs::write(&path, &good[..len]).expect("a file");
        assert!(load(&path, FINGERPRINT).1.is_some(), "{len} bytes of {}", good.len());
    }
    fs::write(&path, [&good[..], &[0; RECORD]].concat()).expect("a file");
    assert!(load(&path, FINGERPRINT).1.is_some(), "more bytes than there should be");
}

/// A forger can make all hashes right. Then sizes are still checked, before anything is read by them.
#[test]
fn forged_sizes_lead_nowhere() {
    let (_folder, path) = written();
    let good = fs::read(&path).expect("a file");
    let table = record(good.first_chunk().expect("a header"))[4] as usize;
    let forge = |header: &dyn Fn(&mut Record), entry: &dyn Fn(&mut Record)| {
        let bytes = |record: &Record| record.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut bad = good.clone();
        let mut first = record(bad[table..].first_chunk().expect("an entry"));
        entry(&mut first);
        bad[table..table + RECORD].copy_from_slice(&bytes(&first));
        let mut forged = record(good.first_chunk().expect("a header"));
        header(&mut forged);
        let from = (forged[4] as usize).min(bad.len());
        forged[5] = xxh64(&bad[from..], 0);
        forged[7] = xxh64(&bytes(&forged)[..RECORD - 8], 0);
        bad[..RECORD].copy_from_slice(&bytes(&forged));
        fs::write(&path, &bad).expect("a file");
        load(&path, FINGERPRINT)
    };
    let unchanged = |_: &mut Record| {};
    assert_eq!(forge(&unchanged, &unchanged), (0, None), "the forger's hashes are not right");
    for value in [0, 1, 63, 64, u64::MAX, u64::MAX - 63, 1 << 63, good.len() as u64, good.len() as u64 + 1] {
        let (_, why) = forge(&|header| header[3] = value, &unchanged);
        assert!(why.is_some(), "{value} entries");
        let (_, why) = forge(&|header| header[4] = value, &unchanged);
        assert!(why.is_some(), "a table at {value}");
        // Entry 0 is the empty tensor: only 0 bytes have its hash, wherever they are.
        let (_, why) = forge(&unchanged, &|entry| entry[6] = value);
        assert_eq!(why.is_none(), value == 0, "{value} bytes");
        let (_, why) = forge(&unchanged, &|entry| entry[5] = value);
        assert_eq!(why.is_none(), value == 0, "offset {value}");
    }
    let (_, why) = forge(&unchanged, &|entry| entry[0] |= 4242 << 32);
    assert!(why.is_some_and(|why| why.contains("unknown type")));
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = Pool::new(1).expect("threads");
    let (_, why) = PackFile::open(folder.path().to_path_buf(), FINGERPRINT, &pool);
    assert!(why.is_some_and(|why| why.contains("not a regular file")));
    let (file, why) = PackFile::open(folder.path().join("no/such/folder.rfpack"), FINGERPRINT, &pool);
    assert_eq!(why, None);
    file.place(key(0), 10, || Ok(buffer(10, 0))).expect("bytes");
    assert!(file.finish().is_err_and(|error| error.to_string().contains("folder.rfpack")));
}
