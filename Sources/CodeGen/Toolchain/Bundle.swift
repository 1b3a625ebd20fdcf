import Base

/// The data that follows the machine code in a compiled program: `Runtime/bundle.h` is the specification.
package enum Bundle {
  /// The parts of a bundle, in the order of the trailer.
  package enum Section: Int, CaseIterable, Sendable {
    case weights, tokenizer, manifest, settings

    /// The section's place in a bundle is a multiple of this.
    package var alignment: Int { self == .weights ? Bundle.page : 64 }

    /// The name in messages.
    package var name: String {
      switch self {
      case .weights: "weights"
      case .tokenizer: "tokenizer"
      case .manifest: "manifest"
      case .settings: "settings"
      }
    }
  }

  static let magic: [UInt8] = Array("mccbundl".utf8)
  static let version: UInt32 = 1
  /// A bundle begins at a multiple of this from the start of the file.
  package static let page = 4096
  /// Bytes of the trailer, the end of the file.
  package static let trailerBytes = 128

  /// 64-bit FNV-1a (Fowler, Noll and Vo).
  static func checksum(_ bytes: some Sequence<UInt8>) -> UInt64 {
    bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// Where the sections of a bundle lie, counted from its start.
  package struct Trailer: Hashable, Sendable {
    /// Bytes from the start of the bundle to the end of the file, trailer included.
    package var bundleBytes: Int
    /// Ties the data to the code it was made for.
    package var identity: UInt64
    /// The place of each section; a section that is missing is `0..<0`.
    package var sections: [Range<Int>]

    /// The 128 bytes at the end of the file.
    var bytes: [UInt8] {
      var bytes = Bundle.magic
      func append(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.littleEndian) { bytes += $0 } }
      append(Bundle.version)
      append(UInt32(Bundle.trailerBytes))
      append(UInt64(bundleBytes))
      append(identity)
      for section in sections {
        append(UInt64(section.isEmpty ? 0 : section.lowerBound))
        append(UInt64(section.count))
      }
      for _ in 0..<3 { append(UInt64(0)) }
      append(Bundle.checksum(bytes))
      return bytes
    }
  }

  /// What a bundle holds besides the weights, which are written in place.
  package struct Contents: Sendable {
    package var identity: UInt64
    package var weightsBytes: Int
    package var tokenizer: [UInt8]
    package var manifest: [UInt8]
    package var settings: [UInt8]

    package init(
      identity: UInt64, weightsBytes: Int, tokenizer: [UInt8] = [], manifest: [UInt8] = [], settings: [UInt8] = []
    ) {
      self.identity = identity
      self.weightsBytes = weightsBytes
      self.tokenizer = tokenizer
      self.manifest = manifest
      self.settings = settings
    }
  }

  /// Appends a bundle to a file that ends at a multiple of ``page``.
  ///
  /// `writeWeights` receives the offset in the file of the weights, whose bytes it writes with `AtomicFile.write(_:at:)`;
  /// gaps read as zero. The result says where each section lies from the start of the bundle.
  @discardableResult
  package static func append(
    _ contents: Contents, to file: AtomicFile, writeWeights: (_ offset: Int) throws -> Void
  ) throws -> Trailer {
    let start = file.offset
    precondition(start % page == 0, "a bundle begins at a page")
    var sections = [Range<Int>](repeating: 0..<0, count: Section.allCases.count)
    if contents.weightsBytes > 0 {
      let offset = try file.reserve(contents.weightsBytes)
      try writeWeights(offset)
      sections[Section.weights.rawValue] = offset - start..<offset - start + contents.weightsBytes
    }
    for (section, bytes) in [
      (Section.tokenizer, contents.tokenizer), (.manifest, contents.manifest), (.settings, contents.settings),
    ] where !bytes.isEmpty {
      try file.pad(to: section.alignment)
      let offset = file.offset - start
      try file.append(bytes)
      sections[section.rawValue] = offset..<offset + bytes.count
    }
    try file.pad(to: 64)
    let trailer = Trailer(
      bundleBytes: file.offset - start + trailerBytes, identity: contents.identity, sections: sections)
    try file.append(trailer.bytes)
    return trailer
  }
}

/// A compiled program, seen from outside: what its bundle holds.
package struct ProgramFile: Sendable {
  /// The mapped file.
  package let file: MappedFile
  /// Bytes of machine code before the bundle.
  package let codeBytes: Int
  package let trailer: Bundle.Trailer

  /// Whether the end of the file looks like the trailer of a bundle.
  package static func isProgram(_ file: MappedFile) -> Bool {
    file.size >= Bundle.trailerBytes
      && file.bytes[(file.size - Bundle.trailerBytes)...].starts(with: Bundle.magic)
  }

  /// Reads and checks the trailer.
  ///
  /// - Throws: `CompileError` of kind `.input` if the file carries no bundle, or a damaged one.
  package init(_ file: MappedFile) throws {
    func failure(_ message: String) -> CompileError {
      CompileError(.input, message, subject: .init(file: file.path, offset: max(file.size - Bundle.trailerBytes, 0)))
    }
    guard Self.isProgram(file) else {
      throw failure("this is no program compiled by mcc: it does not end with the trailer of a bundle")
    }
    let last = UnsafeRawBufferPointer(rebasing: file.bytes[(file.size - Bundle.trailerBytes)...])
    var reader = ByteReader(last, file: file.path, base: file.size - Bundle.trailerBytes)
    try reader.skip(Bundle.magic.count)
    let version = try reader.u32(), size = try reader.u32()
    let bundleBytes = try reader.u64(), identity = try reader.u64()
    let places = try Bundle.Section.allCases.map { _ in (try reader.u64(), try reader.u64()) }
    try reader.skip(24)
    guard try reader.u64() == Bundle.checksum(last.dropLast(8)) else {
      throw failure("the checksum of the bundle's trailer is wrong")
    }
    guard version == Bundle.version, Int(size) == Bundle.trailerBytes else {
      throw failure("the bundle has version \(version), expected \(Bundle.version)")
    }
    guard bundleBytes >= UInt64(Bundle.trailerBytes), bundleBytes <= UInt64(file.size) else {
      throw failure("the bundle claims \(bundleBytes) bytes of a file of \(file.size)")
    }
    let available = bundleBytes - UInt64(Bundle.trailerBytes)
    var sections: [Range<Int>] = []
    for (section, (offset, count)) in zip(Bundle.Section.allCases, places) {
      guard offset <= available, count <= available - offset else {
        throw failure("the section '\(section.name)' lies outside of the bundle")
      }
      sections.append(Int(offset)..<Int(offset + count))
    }
    self.file = file
    codeBytes = file.size - Int(bundleBytes)
    trailer = Bundle.Trailer(bundleBytes: Int(bundleBytes), identity: identity, sections: sections)
  }

  /// The bytes of a section; empty if the program lacks it.
  package func bytes(of section: Bundle.Section) -> UnsafeRawBufferPointer {
    let place = trailer.sections[section.rawValue]
    return UnsafeRawBufferPointer(rebasing: file.bytes[codeBytes + place.lowerBound..<codeBytes + place.upperBound])
  }

  /// The manifest.
  ///
  /// - Throws: `CompileError` of kind `.input` if it is missing or no JSON.
  package func manifest() throws -> JSON {
    let bytes = bytes(of: .manifest)
    guard !bytes.isEmpty else {
      throw CompileError(.input, "the program carries no manifest", subject: .init(file: file.path))
    }
    return try JSON.parse(bytes, file: file.path)
  }
}
