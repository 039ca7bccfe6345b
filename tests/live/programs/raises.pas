{ Each line of standard input is one round: Pascal exceptions pass through traced frames.
  Answers with the number of calls of FCALL made and their sum. No C library is in it. }
program raises;
{$mode objfpc}
uses sysutils;

function fcall(x: longint): longint; [public, alias: 'f_pascal'];
begin
  if x mod 100 = 99 then
    raise Exception.Create('at ' + IntToStr(x));
  result := x * 3 + 1;
end;

var
  line: string;
  x: longint;
  sum: int64;
begin
  writeln('READY');
  flush(output);
  while not eof do begin
    readln(line);
    sum := 0;
    for x := 0 to 999 do
      try
        sum := sum + fcall(x);
      except
        on Exception do sum := sum + 7;
      end;
    writeln('1000 ', sum);
    flush(output);
  end;
end.
