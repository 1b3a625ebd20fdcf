import Base
import Glibc
import TestSupport
import Testing

/// Changes valid files at random and gives them to their readers: an error is right, a crash ends the run.
///
/// Part of the test suite with a fixed number of cases; `make fuzz` sets FUZZ_SECONDS, runs each target for so long under
/// the address sanitizer, and checks memory as well.
@Suite(.serialized) struct FuzzTests {
  static let seconds = getenv("FUZZ_SECONDS").flatMap { Double(String(cString: $0)) }

  /// What breaks readers of text.
  private static let tellingTexts = [
    "-1", "1e999", "-0.0", "9223372036854775807", "18446744073709551616", "NaN", "null", "true", "[]", "{}", "\"\"",
    "[[[[[[[[", "{\"a\":", "\\ud800", "\\u0000", ",", "..", "/",
  ].map { Array($0.utf8) }

  /// One of several ways to damage a file.
  private static func mutate(_ bytes: [UInt8], _ corpus: [[UInt8]], _ random: inout SplitMix64) -> [UInt8] {
    var form = bytes
    for _ in 0...random.int(below: 4) {
      guard !form.isEmpty else { break }
      let place = random.int(below: form.count)
      switch random.int(below: 9) {
      case 0: form[place] = UInt8(truncatingIfNeeded: random.next())
      case 1: form[place] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.int(below: 6)]
      case 2: form[place] ^= 1 << UInt8(random.int(below: 8))
      case 3:
        // A telling number of 32 or 64 bits.
        let telling: [UInt64] = [0, 1, .max, 1 << 63, 1 << 62 - 1, 1 << 31, 1 << 32, 0x7FFF_FFFF, UInt64(form.count)]
        let value = FileBytes.littleEndian(telling[random.int(below: telling.count)])
        for (index, byte) in value.prefix(random.int(below: 2) == 0 ? 4 : 8).enumerated()
        where place + index < form.count {
          form[place + index] = byte
        }
      case 4: form.removeLast(form.count - place)
      case 5: form.removeSubrange(place..<min(form.count, place + 1 + random.int(below: 16)))
      case 6:
        let end = min(form.count, place + 1 + random.int(below: 64))
        form.insert(contentsOf: form[place..<end], at: random.int(below: form.count))
      case 7:
        let text = tellingTexts[random.int(below: tellingTexts.count)]
        let replaced = random.int(below: 2) == 0 ? 0 : min(form.count - place, 1 + random.int(below: text.count))
        form.replaceSubrange(place..<place + replaced, with: text)
      default:
        let other = corpus[random.int(below: corpus.count)]
        guard !other.isEmpty else { break }
        let start = random.int(below: other.count)
        let part = other[start..<min(other.count, start + 1 + random.int(below: 64))]
        form.replaceSubrange(place..<min(form.count, place + part.count), with: part)
      }
    }
    return form
  }

  /// A field of `/proc/self/status` in bytes.
  private static func status(_ key: String) -> Int {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard text.hasPrefix(key) else { continue }
      return text.split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { Int($0) }.first.map { $0 << 10 } ?? 0
    }
    return 0
  }

  @Test(arguments: FuzzTarget.all)
  func damagedFilesNeverCrash(target: FuzzTarget) throws {
    let folder = try TemporaryFolder()
    for (name, bytes) in target.others { try folder.write(name, bytes) }
    let corpus = try target.corpus()
    for bytes in corpus { try target.load(try folder.write(target.file, bytes)) }
    let seed = Self.seconds == nil ? 5 : UInt64.random(in: 0 ... .max)
    if Self.seconds != nil { print("fuzz \(target.name): seed \(seed)") }
    var random = SplitMix64(seed: seed)
    let largest = corpus.map(\.count).max() ?? 0
    // Cases of a megabyte take their time.
    let limit = largest > 1 << 15 ? 60 : 1000
    let watch = Stopwatch()
    var (cases, accepted, slowest) = (0, 0, 0.0)
    // Resets the peak, so that it is that of these cases.
    if Self.seconds != nil, let file = fopen("/proc/self/clear_refs", "w") {
      fputs("5", file)
      fclose(file)
    }
    let before = Self.status("VmRSS")
    while Self.seconds.map({ watch.seconds < $0 }) ?? (cases < limit) {
      let form = Self.mutate(corpus[random.int(below: corpus.count)], corpus, &random)
      let path = try folder.write(target.file, form)
      let one = ThreadTime()
      do {
        try target.load(path)
        accepted += 1
      } catch is CompileError {
      } catch {
        Issue.record("case \(cases): threw \(error), not a CompileError")
      }
      slowest = max(slowest, one.seconds)
      cases += 1
    }
    #expect(slowest < 2, "\(target.name): a case of \(slowest) s")
    let peak = max(0, Self.status("VmHWM") - before)
    if Self.seconds != nil {
      print("fuzz \(target.name): \(cases) cases, \(accepted) accepted, slowest \(slowest) s, \(peak >> 20) MiB")
      // The sanitizer keeps freed memory for a while, 64 MiB as it is run, and takes some itself.
      #expect(peak <= 4 * largest + (64 + 64 + 64) << 20)
    }
    #expect(cases > 0 && accepted < cases)
  }
}
