import Base
import Glibc
import TestSupport
import Testing

@Suite struct HashTests {
  /// FIPS 180-4 examples and NIST's long message.
  @Test func sha256() {
    #expect(SHA256.hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(SHA256.hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(
      SHA256.hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
        == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    #expect(
      SHA256.hex(String(repeating: "a", count: 1_000_000))
        == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
  }

  /// Any way of cutting a message gives the same hash; lengths around the block size pad rightly (values of sha256sum).
  @Test func sha256Pieces() {
    let message = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
    for count in [55, 56, 57, 63, 64, 65, 119, 120, 128, 300] {
      let whole = message[..<count].withUnsafeBytes { SHA256.hex($0) }
      for cut in [0, 1, 31, 54] {
        var hash = SHA256()
        hash.update(Array(message[..<cut]))
        hash.update(Array(message[cut..<count]))
        #expect(hash.hexDigest() == whole)
      }
    }
    #expect(
      message[..<64].withUnsafeBytes { SHA256.hex($0) }
        == "fdeab9acf3710362bd2658cdc9a29e8f9c757fcf9811603a8c447cd1d9151108")
    #expect(
      message[..<55].withUnsafeBytes { SHA256.hex($0) }
        == "463eb28e72f82e0a96c0a4cc53690c571281131f672aa229e0d45ae59b598b59")
    #expect(
      message[..<56].withUnsafeBytes { SHA256.hex($0) }
        == "da2ae4d6b36748f2a318f23e7ab1dfdf45acdc9d049bd80e59de82a60895f562")
  }

  @Test func fieldsDoNotRunTogether() {
    var a = SHA256(), b = SHA256()
    a.update(field: "ab")
    a.update(field: "c")
    b.update(field: "a")
    b.update(field: "bc")
    #expect(a.hexDigest() != b.hexDigest())
  }

  /// Values of the reference implementation.
  @Test func xxHash() {
    func hash(_ text: String, seed: UInt64 = 0) -> UInt64 {
      Array(text.utf8).withUnsafeBytes { xxHash64($0, seed: seed) }
    }
    #expect(hash("") == 0xEF46_DB37_51D8_E999)
    #expect(hash("a") == 0xD24E_C4F1_A98C_6E5B)
    #expect(hash("abc") == 0x44BC_2CF5_AD77_0999)
    #expect(hash("The quick brown fox jumps over the lazy dog") == 0x0B24_2D36_1FDA_71BC)
  }

  @Test func suggestions() {
    let names = ["canonicalize", "fold-constants", "fuse", "quantize"]
    #expect(nearest("cannonicalise", in: names) == "canonicalize")
    #expect(nearest("fsue", in: names) == "fuse")
    #expect(nearest("quantise", in: names) == "quantize")
    #expect(nearest("zzz", in: names) == nil)
    #expect(nearest("", in: names) == nil)
    #expect(editDistance("kitten", "sitting") == 3 && editDistance("", "abc") == 3 && editDistance("ab", "ba") == 1)
  }
}

@Suite struct CompressionTests {
  @Test func zstdRoundTrip() throws {
    for count in [0, 1, 1000, 1_000_000] {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * $0 >> 5) }
      let packed = try bytes.withUnsafeBytes { try Zstd.compress($0) }
      #expect(try packed.withUnsafeBytes { try Zstd.decompress($0, limit: count, of: "test") } == bytes)
      if count > 0 {
        #expect(throws: CompileError.self) {
          try packed.withUnsafeBytes { try Zstd.decompress($0, limit: count - 1, of: "test") }
        }
      }
    }
  }

  @Test func zstdHostile() throws {
    let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 % 7 * $0) }
    let packed = try bytes.withUnsafeBytes { try Zstd.compress($0) }
    expectOnlyCompileErrors(packed) { form in
      _ = try form.withUnsafeBytes { try Zstd.decompress($0, limit: 1 << 20, of: "test") }
    }
    #expect(throws: CompileError.self) {
      try (packed + [0]).withUnsafeBytes { try Zstd.decompress($0, limit: 1 << 20, of: "test") }
    }
  }

  /// `zlib.compressobj(9, zlib.DEFLATED, -15)` of Python over "hello hello hello hello".
  static let deflated: [UInt8] = [0xCB, 0x48, 0xCD, 0xC9, 0xC9, 0x57, 0xC8, 0x40, 0x27, 0x01]

  @Test func inflate() throws {
    let text = Array("hello hello hello hello".utf8)
    func inflate(_ bytes: [UInt8], _ size: Int) throws -> [UInt8] {
      try bytes.withUnsafeBytes { try Zlib.inflate($0, expectedSize: size, of: "test") }
    }
    #expect(try inflate(Self.deflated, text.count) == text)
    for size in [0, text.count - 1, text.count + 1, 1 << 40, -1] {
      #expect(throws: CompileError.self, "\(size)") { try inflate(Self.deflated, size) }
    }
    #expect(try inflate([0x03, 0x00], 0) == [])
    expectOnlyCompileErrors(Self.deflated) { _ = try inflate($0, text.count) }
    #expect(Array("123456789".utf8).withUnsafeBytes { Zlib.crc32($0) } == 0xCBF4_3926)
  }
}

@Suite struct FileTests {
  private func message(_ body: () throws -> Void) -> CompileError? {
    do {
      try body()
      return nil
    } catch {
      return error as? CompileError
    }
  }

  @Test func mapping() throws {
    let folder = try TemporaryFolder()
    let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    let file = try MappedFile(path: folder.write("data", bytes))
    #expect(Array(file.bytes) == bytes && file.size == 10_000)
    #expect(Array(try file.slice(9_990..<10_000)) == Array(bytes[9_990...]))
    #expect(try file.slice(10_000..<10_000).isEmpty)
    for range in [-1..<3, 9_999..<10_001, 0..<Int.max, Int.min..<0] {
      #expect(throws: CompileError.self) { try file.slice(range) }
    }
    // Released pages read the same again.
    file.release(5..<9_000)
    file.release()
    withExtendedLifetime(file) { #expect(Array(file.bytes) == bytes) }
    #expect(try MappedFile.contents(path: folder.write("empty", [])) == [])
    symlink(folder.path("data"), folder.path("link"))
    #expect(try MappedFile(path: folder.path("link")).identity == file.identity)
  }

  @Test func unreadable() throws {
    let folder = try TemporaryFolder()
    #expect(
      message { _ = try MappedFile(path: folder.path("none")) }?.description
        == "cannot read '\(folder.path("none"))': no such file or directory")
    #expect(message { _ = try MappedFile(path: folder.path) }?.message.hasSuffix("it is a directory") == true)
    #expect(message { _ = try MappedFile(path: "/dev/null") }?.message.hasSuffix("it is not a regular file") == true)
    #expect(message { _ = try MappedFile(path: "a\0b") }?.kind == .input)
    mkfifo(folder.path("pipe"), 0o600)
    #expect(message { _ = try MappedFile(path: folder.path("pipe")) }?.kind == .input)
  }

  @Test func reading() throws {
    let bytes: [UInt8] = [1, 0xFF, 2, 1, 3, 0, 0, 0x80, 0, 0, 0x80, 0x3F, 0x68, 0x69, 0xFF]
    try bytes.withUnsafeBytes { bytes in
      var reader = ByteReader(bytes, file: "f", base: 100)
      #expect(try reader.u8() == 1 && reader.i8() == -1 && reader.u16() == 0x102)
      #expect(try reader.i32() == Int32(bitPattern: 0x8000_0003) && reader.f32() == 1 && reader.string(2) == "hi")
      #expect(reader.remaining == 1)
      #expect(
        message { _ = try reader.u16() }?.description == "a 16-bit integer needs 2 bytes, but 1 are left (f, byte 114)")
      #expect(throws: CompileError.self) { try reader.string(1) }
      try reader.seek(to: 0)
      for bad in [-1, 16, Int.max, Int.min] {
        #expect(throws: CompileError.self) { try reader.bytes(bad) }
        #expect(throws: CompileError.self) { try reader.skip(bad) }
        #expect(throws: CompileError.self) { try reader.seek(to: bad) }
      }
      try reader.skip(3)
      try reader.align(to: 8)
      #expect(reader.offset == 8)
      try reader.align(to: 8)
      #expect(reader.offset == 8)
      #expect(throws: CompileError.self) {
        try reader.skip(1)
        try reader.align(to: 32)
      }
    }
    for count: UInt64 in [3, .max, 1 << 62] {
      let bytes = withUnsafeBytes(of: count.littleEndian) { Array($0) } + [0, 0, 0, 0, 0]
      bytes.withUnsafeBytes { bytes in
        var reader = ByteReader(bytes, file: "f")
        #expect(throws: CompileError.self) { try reader.count(elementSize: 2) }
      }
    }
  }

  @Test func atomicWriting() throws {
    let folder = try TemporaryFolder()
    let path = folder.path("out")
    let large = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 * 31 >> 3) }
    let file = try AtomicFile(path: path)
    try file.append("head")
    try file.pad(to: 16)
    #expect(file.offset == 16)
    try file.append(large)
    let hole = try file.reserve(10_000)
    #expect(hole == 16 + large.count)
    try file.append("tail")
    let piece = [UInt8](repeating: 7, count: 100)
    try piece.withUnsafeBytes { try file.write($0, at: hole + 50) }
    #expect(folder.names().filter { !$0.hasPrefix(".") } == [])
    try file.commit()
    #expect(folder.names() == ["out"])
    let expected =
      Array("head".utf8) + [UInt8](repeating: 0, count: 12) + large + [UInt8](repeating: 0, count: 50) + piece
      + [UInt8](repeating: 0, count: 9_850) + Array("tail".utf8)
    #expect(try MappedFile.contents(path: path) == expected)
    var status = stat()
    stat(path, &status)
    let mask = umask(0)
    umask(mask)
    #expect(status.st_mode & 0o777 == 0o644 & ~mask)
  }

  @Test func replacing() throws {
    let folder = try TemporaryFolder()
    try folder.write("old", "old")
    symlink(folder.path("old"), folder.path("link"))
    try AtomicFile.write("new", to: folder.path("link"), permissions: 0o755)
    #expect(folder.names() == ["link", "old"])
    #expect(try MappedFile.contents(path: folder.path("old")) == Array("new".utf8))
    #expect(access(folder.path("old"), X_OK) == 0)
    // Without commit the old file stays and nothing else is left.
    do {
      let file = try AtomicFile(path: folder.path("old"))
      try file.append([UInt8](repeating: 1, count: 5_000_000))
    }
    #expect(folder.names() == ["link", "old"])
    #expect(try MappedFile(path: folder.path("old")).size == 3)
    let dropped = try AtomicFile(path: folder.path("other"))
    dropped.discard()
    #expect(folder.names() == ["link", "old"])
  }

  @Test func unwritable() throws {
    let folder = try TemporaryFolder()
    for path in [folder.path, folder.path("none/out"), folder.path("out/"), "", "/proc/mcc-out", "a\0b"] {
      #expect(message { _ = try AtomicFile(path: path) }?.kind == .create, "\(path)")
    }
    try folder.write("file", "x")
    #expect(message { _ = try AtomicFile(path: folder.path("file/out")) }?.kind == .create)
    #expect(message { _ = try AtomicFile(path: folder.path("none/out")) }?.kind.exitCode == 73)
  }

  @Test func fullDisk() throws {
    let error = message {
      let file = try AtomicFile(path: "/dev/full")
      try file.append("x")
      try file.commit()
    }
    #expect(error?.description == "cannot write '/dev/full': no space left on device")
    #expect(error?.kind.exitCode == 74)
    #expect(
      message {
        let file = try AtomicFile(path: "/dev/full")
        try file.append([UInt8](repeating: 0, count: 3_000_000))
      }?.kind == .io)
    #expect(
      message {
        let file = try AtomicFile(path: "/dev/full")
        let offset = try file.reserve(10)
        try [UInt8](repeating: 0, count: 10).withUnsafeBytes { try file.write($0, at: offset) }
      }?.kind == .io)
    try AtomicFile.write("x", to: "/dev/null")
  }
}
