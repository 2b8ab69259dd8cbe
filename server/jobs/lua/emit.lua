-- ARGV: worker, epoch, seq before the first event, then type and body of each event.
-- An event whose number was given already is skipped, so a repeated call changes nothing.
-- Returns {seq, cancel flag}; seq -1 when the job is no longer this worker's.
if not is_mine(ARGV[1], ARGV[2]) then
  return {-1, 0}
end
local seq = tonumber(ARGV[3])
local written = number('seq')
for i = 4, #ARGV, 2 do
  seq = seq + 1
  if seq > written then
    append(ARGV[i], ARGV[i + 1])
  end
end
return {number('seq'), field('cancel') == '1' and 1 or 0}
