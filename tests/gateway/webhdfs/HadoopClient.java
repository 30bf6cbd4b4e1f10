import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.*;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.security.token.delegation.DelegationTokenIdentifier;
import org.apache.hadoop.security.token.Token;
import org.apache.hadoop.util.ToolRunner;

/**
 * Hadoop's own client in one JVM, which is slow to start: first what a program calls, then every line of standard input
 * as the words of an FsShell command, separated by tabs. Prints "=== STATUS" and what the command has printed.
 */
public class HadoopClient {
  public static void main(String[] args) throws Exception {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    Configuration conf = new Configuration();
    conf.set("fs.defaultFS", args[0]);
    program(FileSystem.get(URI.create(args[0]), conf), args[1]);
    out.println("=== program");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      ByteArrayOutputStream said = new ByteArrayOutputStream();
      System.setOut(new PrintStream(said, true, "UTF-8"));
      System.setErr(new PrintStream(said, true, "UTF-8"));
      int status = ToolRunner.run(conf, new FsShell(), line.split("\t"));
      System.out.flush();
      System.err.flush();
      out.println("=== " + status);
      out.print(said.toString("UTF-8"));
      out.flush();
    }
  }

  private static void program(FileSystem files, String token) throws Exception {
    Path root = new Path("/hadoop-program");
    check(files.mkdirs(root), "mkdirs");
    Path one = new Path(root, "one");
    write(files, one, "one");
    check(files.getFileStatus(one).getLen() == 3, "length");
    check(refused(FileAlreadyExistsException.class, () -> files.create(one, false).close()), "create");
    check(refused(java.io.FileNotFoundException.class, () -> files.open(new Path(root, "none")).read()), "open");
    byte[] part = new byte[2];
    try (FSDataInputStream in = files.open(one)) {
      in.readFully(1, part);
    }
    check(new String(part, StandardCharsets.UTF_8).equals("ne"), "positional read");

    Path two = new Path(root, "two");
    write(files, two, "two");
    files.concat(one, new Path[] {two});
    check(read(files, one).equals("onetwo") && !files.exists(two), "concat");
    try (FSDataOutputStream more = files.append(one)) {
      more.write("three".getBytes(StandardCharsets.UTF_8));
    }
    check(read(files, one).equals("onetwothree"), "append");
    check(files.truncate(one, 3) && read(files, one).equals("one"), "truncate");

    write(files, two, "2");
    check(!files.rename(two, new Path(root, "none/x")) && files.rename(two, new Path(root, "three")), "rename");
    BlockLocation[] blocks = files.getFileBlockLocations(files.getFileStatus(one), 0, 3);
    check(blocks.length == 1 && blocks[0].getHosts().length == 2 && blocks[0].getLength() == 3, "locations");
    check(files.getFileChecksum(one).getLength() == 28, "checksum");
    check(files.getStatus().getCapacity() > 0, "df");
    check(files.getServerDefaults(root).getBlockSize() == 64 << 20, "defaults");
    check(files.getContentSummary(root).getFileCount() == 2, "summary");
    check(files.getQuotaUsage(root).getFileAndDirectoryCount() == 3, "quota usage");
    check(files.getHomeDirectory().toUri().getPath().startsWith("/user/"), "home");
    check(files.getTrashRoot(root).toUri().getPath().endsWith("/.Trash"), "trash root");
    check(files.getTrashRoots(false) != null, "trash roots");

    files.setXAttr(one, "user.a", new byte[] {0, (byte) 255}, EnumSet.of(XAttrSetFlag.CREATE));
    check(files.getXAttr(one, "user.a")[1] == (byte) 255 && files.listXAttrs(one).size() == 1, "xattr");
    check(files.getXAttrs(one).size() == 1, "xattrs");
    files.removeXAttr(one, "user.a");
    check(refused(java.io.IOException.class, () -> files.getXAttr(one, "user.a")), "no xattr");
    files.setPermission(one, new FsPermission((short) 0640));
    check(files.getAclStatus(one).getPermission().toShort() == 0640, "acl");
    files.access(one, FsAction.READ);
    files.setTimes(one, 1320171722771L, -1);
    check(files.getFileStatus(one).getModificationTime() == 1320171722771L, "times");
    check(files.setReplication(one, (short) 1) && files.getFileStatus(one).getReplication() == 1, "replication");

    files.createSymlink(one, new Path(root, "link"), false);
    check(files.getFileLinkStatus(new Path(root, "link")).isSymlink(), "link status");
    check(files.getLinkTarget(new Path(root, "link")).toUri().getPath().equals("/hadoop-program/one"), "link target");
    List<String> names = new ArrayList<>();
    for (RemoteIterator<FileStatus> each = files.listStatusIterator(root); each.hasNext();) {
      names.add(each.next().getPath().getName());
    }
    check(names.equals(List.of("link", "one", "three")), "iterator: " + names);
    check(refused(UnsupportedOperationException.class, () -> files.createSnapshot(root, "s")), "snapshot");
    check(refused(PathIsNotEmptyDirectoryException.class, () -> files.delete(root, false)), "delete");
    check(files.delete(root, true) && !files.delete(root, true), "delete recursively");

    Token<DelegationTokenIdentifier> read = new Token<>();
    read.decodeFromUrlString(token);
    DelegationTokenIdentifier who = new DelegationTokenIdentifier();
    who.readFields(new java.io.DataInputStream(new java.io.ByteArrayInputStream(read.getIdentifier())));
    check(who.getUser().getUserName().equals("alice") && who.getRenewer().toString().equals("bob"), "token's names");
    check(who.getIssueDate() == 1700000000000L && who.getMaxDate() == 1700000060000L, "token's dates");
    check(read.getKind().toString().equals("WEBHDFS delegation"), "token's kind");
    check(read.getService().toString().equals("127.0.0.1:9600"), "token's service");
  }

  private interface Attempt {
    void run() throws Exception;
  }

  private static boolean refused(Class<? extends Exception> expected, Attempt attempt) throws Exception {
    try {
      attempt.run();
    } catch (Exception error) {
      if (expected.isInstance(error)) {
        return true;
      }
      throw error;
    }
    return false;
  }

  private static void write(FileSystem files, Path path, String text) throws Exception {
    try (FSDataOutputStream out = files.create(path, true)) {
      out.write(text.getBytes(StandardCharsets.UTF_8));
    }
  }

  private static String read(FileSystem files, Path path) throws Exception {
    try (FSDataInputStream in = files.open(path)) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    }
  }

  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }
}
