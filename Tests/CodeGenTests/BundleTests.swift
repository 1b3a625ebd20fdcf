import Base
import CodeGen
import IR
import TestSupport
import Testing

@Suite struct BundleTests {
  private static let identity: UInt64 = 0x0123_4567_89ab_cdef

  /// A file of `code` bytes with a bundle behind it.
  private func program(_ folder: TemporaryFolder, code: Int = 5000, weights: [UInt8] = [1, 2, 3]) throws -> String {
    let path = folder.path("program")
    let file = try AtomicFile(path: path, permissions: 0o755)
    try file.append([UInt8](repeating: 7, count: code))
    try file.pad(to: Bundle.page)
    let contents = Bundle.Contents(
      identity: Self.identity, weightsBytes: weights.count, tokenizer: [9, 9],
      manifest: Array("{\"name\": \"net\"}\n".utf8), settings: Array("eos 2\n".utf8))
    try Bundle.append(contents, to: file) { offset in
      try weights.withUnsafeBytes { try file.write($0, at: offset) }
    }
    try file.commit()
    return path
  }

  @Test func whatIsWrittenIsRead() throws {
    let folder = try TemporaryFolder()
    let file = try MappedFile(path: try program(folder))
    #expect(ProgramFile.isProgram(file))
    let program = try ProgramFile(file)
    #expect(program.codeBytes == 8192)
    #expect(program.trailer.identity == Self.identity)
    #expect(Array(program.bytes(of: .weights)) == [1, 2, 3])
    #expect(Array(program.bytes(of: .tokenizer)) == [9, 9])
    #expect(Array(program.bytes(of: .settings)) == Array("eos 2\n".utf8))
    #expect(try program.manifest()["name"]?.string == "net")
  }

  @Test func sectionsAreAligned() throws {
    let folder = try TemporaryFolder()
    let program = try ProgramFile(try MappedFile(path: try program(folder, weights: [UInt8](repeating: 1, count: 100))))
    for section in Bundle.Section.allCases {
      #expect(program.trailer.sections[section.rawValue].lowerBound % section.alignment == 0)
    }
    #expect(program.codeBytes % Bundle.page == 0)
  }

  @Test func aBundleWithoutWeightsHasNoSuchSection() throws {
    let folder = try TemporaryFolder()
    let program = try ProgramFile(try MappedFile(path: try program(folder, weights: [])))
    #expect(program.bytes(of: .weights).isEmpty)
    #expect(Array(program.bytes(of: .tokenizer)) == [9, 9])
  }

  @Test func everyTruncationIsAnError() throws {
    let folder = try TemporaryFolder()
    let bytes = try MappedFile.contents(path: try program(folder))
    for length in Array(stride(from: 0, to: bytes.count, by: 61)) + Array(bytes.count - 130..<bytes.count) {
      let path = try folder.write("cut", Array(bytes[..<length]))
      #expect(throws: CompileError.self) { try ProgramFile(try MappedFile(path: path)) }
    }
  }

  @Test func everyChangeOfTheTrailerIsAnError() throws {
    let folder = try TemporaryFolder()
    let bytes = try MappedFile.contents(path: try program(folder))
    for offset in bytes.count - Bundle.trailerBytes..<bytes.count {
      for flip in [UInt8(1), 0x80, 0xFF] {
        var copy = bytes
        copy[offset] ^= flip
        let path = try folder.write("changed", copy)
        #expect(throws: CompileError.self) { try ProgramFile(try MappedFile(path: path)) }
      }
    }
  }

  /// A trailer with a valid checksum that lies about everything else.
  @Test func aTrailerThatLiesIsAnError() throws {
    let folder = try TemporaryFolder()
    let bytes = try MappedFile.contents(path: try program(folder))
    for (offset, value) in [
      (16, UInt64.max), (16, 0), (16, UInt64(bytes.count) + 1), (32, UInt64.max), (40, UInt64.max),
      (40, UInt64(bytes.count)), (48, 1 << 63), (56, UInt64.max - 8),
    ] {
      var copy = bytes
      let start = copy.count - Bundle.trailerBytes
      withUnsafeBytes(of: value.littleEndian) { copy.replaceSubrange(start + offset..<start + offset + 8, with: $0) }
      let sum = copy[start..<start + 120].reduce(0xcbf2_9ce4_8422_2325 as UInt64) {
        ($0 ^ UInt64($1)) &* 0x100_0000_01b3
      }
      withUnsafeBytes(of: sum.littleEndian) { copy.replaceSubrange(start + 120..<start + 128, with: $0) }
      let path = try folder.write("lies", copy)
      #expect(throws: CompileError.self, "\(offset) \(value)") { try ProgramFile(try MappedFile(path: path)) }
    }
  }

  @Test func anyOtherFileIsNoProgram() throws {
    let folder = try TemporaryFolder()
    let file = try MappedFile(path: try folder.write("text", "hello"))
    #expect(!ProgramFile.isProgram(file))
    #expect(throws: CompileError.self) { try ProgramFile(file) }
  }

  @Test func settingsTellTheDefaultsOfSampling() throws {
    var settings = GenerationSettings()
    settings.temperature = 0.7
    settings.endIDs = [2, 5]
    var tokenizer = Tokenizer(algorithm: .byteFallbackBPE)
    tokenizer.beginID = 1
    tokenizer.endIDs = [3]
    // Without sampling the likeliest token is taken whatever the temperature says.
    let greedy = String(decoding: SettingsSection.encode(settings, tokenizer), as: UTF8.self)
    #expect(greedy == "temperature 0.0\ntop_p 1.0\ntop_k 0\nrepeat_penalty 1.0\nbos 1\neos 2\neos 5\n")
    settings.samples = true
    #expect(String(decoding: SettingsSection.encode(settings, tokenizer), as: UTF8.self).hasPrefix("temperature 0.7\n"))
    #expect(String(decoding: SettingsSection.encode(nil, tokenizer), as: UTF8.self) == "bos 1\neos 3\n")
    #expect(SettingsSection.encode(nil, nil).isEmpty)
  }

  @Test func aTokenizerBecomesASection() throws {
    var tokenizer = Tokenizer(algorithm: .byteFallbackBPE)
    tokenizer.tokens = ["<unk>", "<s>", "<0x0A>", "a", "b", "ab", "\u{2581}"]
    tokenizer.kinds = [.unknown, .control, .byte, .normal, .normal, .normal, .normal]
    tokenizer.merges = [3, 4]
    tokenizer.added = [.init(id: 1), .init(id: 0)]
    tokenizer.added[0].stripsRight = true
    tokenizer.prefix = [1]
    tokenizer.beginID = 1
    tokenizer.unknownID = 0
    let bytes = try TokenizerSection.encode(tokenizer)
    func word(_ offset: Int) -> Int {
      Int(bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) })
    }
    #expect(bytes.starts(with: Array("mcctoken".utf8)))
    #expect(word(8) == 2 && word(12) == bytes.count && word(16) == 0 && word(20) == 16 && word(24) == 7)
    #expect(word(28) == 1 && word(36) == 0 && word(172) == 1 && word(word(168)) == 1)
    func text(_ id: Int) -> [UInt8] {
      Array(bytes[word(72) + word(word(64) + 4 * id)..<word(72) + word(word(64) + 4 * id + 4)])
    }
    #expect(text(2) == Array("<0x0A>".utf8) && text(5) == Array("ab".utf8) && text(6) == Array("\u{2581}".utf8))
    #expect(Array(bytes[word(80)..<word(80) + 7]) == [0, 1, 0, 0, 0, 0, 0])
    // The one merge is in one of its slots: 3 and 4, of the best rank, make 5.
    let merges = (0..<word(108)).map { slot in (0..<4).map { word(word(104) + 16 * slot + 4 * $0) } }
    #expect(merges.contains([3, 4, 0, 5]) && merges.count { $0[3] != 0xFFFF_FFFF } == 1)
    #expect(word(140) == 2 && word(word(136)) == 1 && word(word(136) + 4) == 2)
    // All tokens but the control token can be looked up.
    let table = (0..<word(100)).map { word(word(96) + 4 * $0) }
    #expect(table.filter { $0 != 0 }.sorted() == [1, 3, 4, 5, 6, 7])
  }

  @Test func bytesShownAsCharactersAreUndone() throws {
    var tokenizer = Tokenizer(algorithm: .byteLevelBPE)
    // A space is U+0120, a line feed U+010A, 0xC3 stays, 0xAD is U+0143 in the map of GPT-2.
    tokenizer.tokens = ["\u{120}a", "\u{10A}", "\u{C3}", "\u{143}"]
    tokenizer.kinds = [.normal, .normal, .normal, .normal]
    tokenizer.splitters = [.init(.bytes)]
    tokenizer.decoders = [.init(.bytes)]
    let bytes = try TokenizerSection.encode(tokenizer)
    func word(_ offset: Int) -> Int {
      Int(bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) })
    }
    #expect(Array(bytes[word(72)..<word(72) + 5]) == [0x20, 0x61, 0x0A, 0xC3, 0xAD])
  }

  /// The tree of prefixes lists nodes by level and, in a level, by text.
  @Test func wordPiecesBecomeATree() throws {
    var tokenizer = Tokenizer(algorithm: .wordPiece)
    tokenizer.tokens = ["b", "ab", "a", "##a"]
    tokenizer.kinds = [.normal, .normal, .normal, .normal]
    let bytes = try TokenizerSection.encode(tokenizer)
    func word(_ offset: Int) -> UInt32 {
      bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
    }
    let nodes = Int(word(116))
    #expect(Array(bytes[Int(word(112))..<Int(word(112)) + nodes]) == Array("\0#ab#ba".utf8))
    #expect((0...nodes).map { word(Int(word(120)) + 4 * $0) } == [1, 4, 5, 6, 6, 7, 7, 7])
    #expect((0..<nodes).map { Int32(bitPattern: word(Int(word(128)) + 4 * $0)) } == [-1, -1, 2, 0, -1, 1, 3])
  }

  @Test func aTokenizerThatContradictsItselfIsAnError() throws {
    var tokenizer = Tokenizer(algorithm: .scoredBPE)
    #expect(throws: CompileError.self) { try TokenizerSection.encode(tokenizer) }
    tokenizer.tokens = ["a"]
    #expect(throws: CompileError.self) { try TokenizerSection.encode(tokenizer) }
    tokenizer.scores = [0]
    tokenizer.kinds = [.normal]
    tokenizer.prefix = [1]
    #expect(throws: CompileError.self) { try TokenizerSection.encode(tokenizer) }
  }
}
